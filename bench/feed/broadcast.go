//go:build linux

package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Broadcast is the floor: a bare server of server-sent events. It has no log,
// no store, and nobody resumes; frames have the same sizes, pace and grouping
// as those of the feed, and beats come between.
type Broadcast struct {
	server *http.Server

	mu      sync.Mutex
	frames  []byte // all that was sent
	bell    chan struct{}
	pending []byte
	last    int
	flushed time.Time
	due     bool
	streams int
}

// Keys are PEM; empty without TLS.
type Keys struct{ Certificate, Key []byte }

// Open starts the server and returns its address.
func (b *Broadcast) Open(k Keys, address *string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	*address = listener.Addr().String()
	b.bell = make(chan struct{})
	b.server = &http.Server{Handler: b, ErrorLog: log.New(io.Discard, "", 0)} // readers go when they like
	if len(k.Certificate) > 0 {
		pair, err := tls.X509KeyPair(k.Certificate, k.Key)
		if err != nil {
			return err
		}
		b.server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
		listener = tls.NewListener(listener, b.server.TLSConfig)
	}
	go func() { _ = b.server.Serve(listener) }() // it ends with the process
	go func() {
		for range time.Tick(100 * time.Millisecond) {
			b.send([]byte(fmt.Sprintf("event: beat\ndata: {\"age_ms\":5,\"now\":%.6f,\"keys\":1,\"node\":\"aaaaaaaaaaaaaaaaaaaaaaaa\"}\n\n",
				float64(time.Now().UnixMicro())/1e6)))
		}
	}()
	return nil
}

func (b *Broadcast) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	b.mu.Lock()
	b.streams++
	at := len(b.frames)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.streams--
		b.mu.Unlock()
	}()
	for control.Flush() == nil {
		b.mu.Lock()
		next, bell := b.frames[at:], b.bell
		b.mu.Unlock()
		if len(next) == 0 {
			select {
			case <-bell:
				continue
			case <-r.Context().Done():
				return
			}
		}
		if _, err := w.Write(next); err != nil {
			return
		}
		at += len(next)
	}
}

// send sends a frame to all.
func (b *Broadcast) send(frame []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.append(frame)
}

// append sends a frame under the lock.
func (b *Broadcast) append(frame []byte) {
	b.frames = append(b.frames, frame...)
	close(b.bell)
	b.bell = make(chan struct{})
}

// Streams is how many readers there are.
func (b *Broadcast) Streams(_ None, n *int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	*n = b.streams
	return nil
}

// Run publishes events at a pace, and returns when each was.
func (b *Broadcast) Run(p Pace, times *[]int64) error {
	start := mono()
	for n := range p.Events {
		sleepUntil(start + int64(n)*int64(time.Second)/int64(p.Rate))
		*times = append(*times, mono())
		b.publish()
	}
	return nil
}

// Pace is how many events come in a second, and how many in all.
type Pace struct{ Rate, Events int }

// sidOf is the session of the n-th event, of the length that sessions have.
func sidOf(n int) string { return fmt.Sprintf("%024d", n) }

func (b *Broadcast) publish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	if len(b.pending) > 0 {
		b.pending = append(b.pending, ',')
	}
	b.pending = fmt.Appendf(b.pending, `["s",%q,%d]`, sidOf(b.last), time.Now().Unix()+315)
	if b.due {
		return
	}
	every := max(5*time.Millisecond, time.Duration(b.streams)*10*time.Microsecond)
	wait := time.Until(b.flushed.Add(every))
	if wait <= 0 {
		b.flush()
		return
	}
	b.due = true
	time.AfterFunc(wait, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.flush()
	})
}

func (b *Broadcast) flush() {
	b.due, b.flushed = false, time.Now()
	b.append(fmt.Appendf(nil, "id: 7.%d\nevent: live\ndata: [%s]\n\n", b.last, b.pending))
	b.pending = b.pending[:0]
}
