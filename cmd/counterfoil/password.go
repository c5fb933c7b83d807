package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// maxInput bounds what is read from stdin.
const maxInput = 64 << 10

var errInterrupted = errors.New("interrupted")

// untilInterrupted waits for a read that nothing can end but its input or the
// end of the process.
func untilInterrupted(ctx context.Context, read func() (string, error)) (string, error) {
	type answer struct {
		text string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		text, err := read()
		answered <- answer{text, err}
	}()
	select {
	case <-ctx.Done():
		return "", errInterrupted
	case got := <-answered:
		return got.text, got.err
	}
}

// readLine reads the first line of stdin.
func readLine(ctx context.Context, r io.Reader) (string, error) {
	return untilInterrupted(ctx, func() (string, error) {
		line, err := bufio.NewReader(io.LimitReader(r, maxInput)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read stdin: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	})
}

// readAll reads stdin to its end.
func readAll(ctx context.Context, r io.Reader) (string, error) {
	return untilInterrupted(ctx, func() (string, error) {
		data, err := io.ReadAll(io.LimitReader(r, maxInput))
		if err != nil {
			return "", fmt.Errorf("read stdin: %w", err)
		}
		return strings.TrimSpace(string(data)), nil
	})
}

// askPassword asks a person twice, without echo.
func askPassword(ctx context.Context, a *app) (string, error) {
	first, err := askHidden(ctx, a, "Password: ")
	if err != nil {
		return "", err
	}
	again, err := askHidden(ctx, a, "Again: ")
	if err != nil {
		return "", err
	}
	if first != again {
		return "", errors.New("the two passwords differ: try again")
	}
	return first, nil
}

// askHidden reads a line from the terminal without echo. An interrupt ends
// the wait and brings the echo back.
func askHidden(ctx context.Context, a *app, prompt string) (string, error) {
	tty, ok := a.stdin.(*os.File)
	if !ok {
		return "", errors.New("stdin is not a terminal")
	}
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read the terminal: %w", err)
	}
	fmt.Fprint(a.stderr, prompt)
	text, err := untilInterrupted(ctx, func() (string, error) {
		text, err := term.ReadPassword(fd)
		if err != nil {
			return "", fmt.Errorf("read the terminal: %w", err)
		}
		return string(text), nil
	})
	fmt.Fprintln(a.stderr)
	if errors.Is(err, errInterrupted) {
		err = errors.Join(err, term.Restore(fd, before))
	}
	return text, err
}

// generatePassword makes one that is easy to copy: five groups of five
// letters, 123 random bits, no two letters that look alike.
func generatePassword() string {
	const letters = "abcdefghjkmnpqrstuvwxyz23456789" // 31
	var b strings.Builder
	for i := range 25 {
		if i > 0 && i%5 == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(letters[below31()])
	}
	return b.String()
}

// below31 draws 0 … 30, each as likely.
func below31() byte {
	var one [1]byte
	for {
		rand.Read(one[:])
		if v := one[0] & 31; v < 31 {
			return v
		}
	}
}
