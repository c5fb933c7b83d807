//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil/bench/internal/load"
)

// Listeners is a process that holds many bare readers. They look for certain
// sessions in what comes and do nothing else; a reader whose connection ends
// opens another at once.
type Listeners struct{ readers []*reader }

type reader struct {
	mu    sync.Mutex
	sids  []string // of the events whose time is taken, in their order
	times []int64  // of each; 0: it has not come
	next  int      // all before it have come
	conn  net.Conn
	back  int64 // when the present stream began
}

// Start opens the connections.
func (l *Listeners) Start(f Following, _ *None) error {
	config, err := f.tlsConfig()
	if err != nil {
		return err
	}
	for range f.N {
		r := new(reader)
		l.readers = append(l.readers, r)
		go func() {
			for {
				conn, err := load.Dial(context.Background(), f.Address, config)
				if err != nil {
					time.Sleep(5 * time.Millisecond)
					continue
				}
				r.read(conn, f.Path, f.APIKey)
			}
		}()
	}
	return nil
}

// read reads one connection to its end.
func (r *reader) read(conn net.Conn, path, key string) {
	defer func() { _ = conn.Close() }() // it was read to its end
	r.mu.Lock()
	r.conn = conn
	r.mu.Unlock()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n\r\n", path, key); err != nil {
		return
	}
	lines := bufio.NewReaderSize(conn, 40<<10) // more than the longest frame
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case err == bufio.ErrBufferFull:
		case err != nil:
			return
		case bytes.HasPrefix(line, []byte("data: [[")):
			r.look(line)
		case bytes.HasPrefix(line, []byte("HTTP/1.1 200")):
			r.begun(conn)
		}
	}
}

// ahead is how many of the next sessions are looked for in an ordinary line: a
// few are revoked at a time. In a long one, as of a snapshot, all are.
const (
	ahead = 3
	long  = 8 << 10
)

// look takes the time of the sessions in the line.
func (r *reader) look(line []byte) {
	now := mono()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := r.next; i < len(r.sids) && (i < r.next+ahead || len(line) > long); i++ {
		if r.times[i] == 0 && bytes.Contains(line, []byte(r.sids[i])) {
			r.times[i] = now
		}
		if i == r.next && r.times[i] != 0 {
			r.next++
		}
	}
}

// begun takes note of an answer, unless the connection is one that was cut.
func (r *reader) begun(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == conn {
		r.back = mono()
	}
}

// Watch has the times taken at which sessions come, in this order.
func (l *Listeners) Watch(sids []string, _ *None) error {
	for _, r := range l.readers {
		r.mu.Lock()
		r.sids, r.times, r.next = sids, make([]int64, len(sids)), 0
		r.mu.Unlock()
	}
	return nil
}

// Watched waits for the sessions at each reader and returns when they came.
func (l *Listeners) Watched(_ None, times *[][]int64) error {
	for _, r := range l.readers {
		err := r.await(func() bool { return r.next == len(r.sids) })
		if err != nil {
			return err
		}
		*times = append(*times, r.times)
	}
	return nil
}

// Cut ends all connections.
func (l *Listeners) Cut(None, *None) error {
	for _, r := range l.readers {
		r.mu.Lock()
		conn := r.conn
		r.conn, r.back = nil, 0
		_ = conn.Close() // the other side may have done so
		r.mu.Unlock()
	}
	return nil
}

// Back returns when the stream of each reader began.
func (l *Listeners) Back(_ None, times *[]int64) error {
	for _, r := range l.readers {
		if err := r.await(func() bool { return r.back != 0 }); err != nil {
			return err
		}
		*times = append(*times, r.back)
	}
	return nil
}

func (r *reader) await(ok func() bool) error {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		is := ok()
		r.mu.Unlock()
		if is {
			return nil
		}
		if time.Now().After(end) {
			return errors.New("a reader waits in vain")
		}
	}
}
