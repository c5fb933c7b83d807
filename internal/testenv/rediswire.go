//go:build unix

package testenv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// redisDo sends one command on a connection of its own. The tests' servers
// are managed without a client library, which would hide redirections and
// lost connections.
func redisDo(ctx context.Context, addr string, command ...string) (string, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	deadline := time.Now().Add(10 * time.Second)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return "", errors.Join(err, conn.Close())
	}
	var request strings.Builder
	fmt.Fprintf(&request, "*%d\r\n", len(command))
	for _, word := range command {
		fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := io.WriteString(conn, request.String()); err != nil {
		return "", errors.Join(err, conn.Close())
	}
	answer, err := redisAnswer(bufio.NewReader(conn))
	return answer, errors.Join(err, conn.Close())
}

// redisAnswer reads one value of the Redis protocol (RESP2).
func redisAnswer(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", errors.New("redis: an empty line for an answer")
	}
	kind, text := line[0], line[1:]
	switch kind {
	case '+', ':':
		return text, nil
	case '-':
		return "", fmt.Errorf("redis: %s", text)
	case '$', '*':
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return "", err // nothing is there
		}
		if kind == '$' {
			body := make([]byte, n+2)
			_, err := io.ReadFull(r, body)
			return string(body[:n]), err
		}
		values := make([]string, n)
		for i := range values {
			if values[i], err = redisAnswer(r); err != nil {
				return "", err
			}
		}
		return strings.Join(values, "\n"), nil
	}
	return "", fmt.Errorf("redis: an answer that starts with %q", kind)
}
