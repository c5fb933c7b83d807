// Package load sends HTTP/1.1 requests in a closed loop: a fixed number of
// keep-alive connections, each of which sends its next request when the answer
// to the last one is there. It does as little else as it can, since it shares
// the processors with the server that it measures.
package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Plan says what to send.
type Plan struct {
	Address     string        // host:port
	Others      []string      // further ones: connections go to one after the other
	Connections int           // at once
	Duration    time.Duration // new requests are sent for so long
	// Next returns the n-th request, as it goes over the wire, or nil when
	// there are no more. It is called concurrently.
	Next func(n int64) []byte
	// Status is the one that every answer must have.
	Status int
	// Keep, when set, is given the body of each answer. It is called
	// concurrently and must not hold on to the body.
	Keep func(body []byte)
	// TLS, when set, is what the connections speak.
	TLS *tls.Config
}

// Result is what came of it.
type Result struct {
	Requests  int
	Took      time.Duration
	Latencies []time.Duration // one a request, sorted
}

// Rate is in requests a second.
func (r *Result) Rate() float64 { return float64(r.Requests) / r.Took.Seconds() }

// Percentile returns the latency that p percent of the requests stayed within.
func (r *Result) Percentile(p float64) time.Duration {
	if len(r.Latencies) == 0 {
		return 0
	}
	return r.Latencies[min(int(float64(len(r.Latencies))*p/100), len(r.Latencies)-1)]
}

// Repeat returns a Next that goes through the requests again and again.
func Repeat(requests [][]byte) func(int64) []byte {
	return func(n int64) []byte { return requests[n%int64(len(requests))] }
}

// Once returns a Next that sends each request once.
func Once(requests [][]byte) func(int64) []byte {
	return func(n int64) []byte {
		if n >= int64(len(requests)) {
			return nil
		}
		return requests[n]
	}
}

// Run sends requests until the time is over or there are no more. The first
// wrong answer ends it with an error.
func Run(ctx context.Context, plan Plan) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	clients := make([]*client, plan.Connections)
	addresses := append([]string{plan.Address}, plan.Others...)
	for i := range clients {
		conn, err := Dial(ctx, addresses[i%len(addresses)], plan.TLS)
		if err != nil {
			return Result{}, err
		}
		defer func() { _ = conn.Close() }() // nothing is left to be sent
		clients[i] = &client{conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}
	}
	var all sync.WaitGroup
	var sent atomic.Int64
	start := time.Now()
	end := start.Add(plan.Duration)
	for _, c := range clients {
		// A server that does not answer must not hold this up for ever.
		if err := c.conn.SetDeadline(end.Add(30 * time.Second)); err != nil {
			return Result{}, err
		}
		all.Go(func() {
			if err := c.loop(ctx, &plan, &sent, end); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	took := time.Since(start)
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	r := Result{Took: took}
	for _, c := range clients {
		r.Requests += len(c.latencies)
		r.Latencies = append(r.Latencies, c.latencies...)
	}
	slices.Sort(r.Latencies)
	return r, nil
}

// Dial opens a connection, with TLS where a configuration says so.
func Dial(ctx context.Context, address string, config *tls.Config) (net.Conn, error) {
	if config == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
}

type client struct {
	conn      net.Conn
	in        *bufio.Reader
	body      []byte
	latencies []time.Duration
}

func (c *client) loop(ctx context.Context, plan *Plan, sent *atomic.Int64, end time.Time) error {
	for now := time.Now(); now.Before(end) && ctx.Err() == nil; {
		request := plan.Next(sent.Add(1) - 1)
		if request == nil {
			return nil
		}
		if _, err := c.conn.Write(request); err != nil {
			return err
		}
		status, err := c.read()
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		done := time.Now()
		c.latencies = append(c.latencies, done.Sub(now))
		now = done
		if status != plan.Status {
			return fmt.Errorf("answered %d, not %d: %.300s", status, plan.Status, c.body)
		}
		if plan.Keep != nil {
			plan.Keep(c.body)
		}
	}
	return nil
}

// read reads one answer into c.body: those of servers that say how long it is.
func (c *client) read() (status int, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, fmt.Errorf("no status line: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, fmt.Errorf("no status: %q", line)
	}
	length := -1
	if status == 204 {
		length = 0
	}
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		const name = "Content-Length: "
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			if length, err = strconv.Atoi(string(line[len(name):])); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 {
		return 0, errors.New("the answer does not say its length")
	}
	c.body = slices.Grow(c.body[:0], length)[:length]
	_, err = io.ReadFull(c.in, c.body)
	return status, err
}

// Request puts a request together. header holds whole lines without their ends.
func Request(method, path, host, body string, header ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, host)
	for _, line := range header {
		b.WriteString(line + "\r\n")
	}
	if method != "GET" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	return b.Bytes()
}
