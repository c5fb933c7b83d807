package simulation

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// network carries connections between named hosts, in memory and on simulated
// time. The way between two hosts can be slow, held (what is sent waits), or
// cut (connections break and none can be made).
type network struct {
	mu        sync.Mutex
	ways      map[[2]string]*way
	listeners map[string]*listener
	conns     map[*conn]bool
}

// way is the state between two hosts; the network's mu guards it.
type way struct {
	latency time.Duration
	held    bool
	cut     bool
	changed chan struct{} // closed with each change
}

const usualLatency = time.Millisecond

var (
	errCut    = errors.New("the link is cut")
	errNobody = errors.New("nobody listens")
	errReset  = errors.New("the connection was reset")
)

func newNetwork() *network {
	return &network{ways: make(map[[2]string]*way), listeners: make(map[string]*listener), conns: make(map[*conn]bool)}
}

// between returns the way between two hosts; mu is held.
func (n *network) between(a, b string) *way {
	w := n.ways[[2]string{a, b}]
	if w == nil {
		w = &way{latency: usualLatency, changed: make(chan struct{})}
		n.ways[[2]string{a, b}] = w
	}
	return w
}

// set changes the way from a client's host to a server's.
func (n *network) set(client, server string, change func(*way)) {
	n.mu.Lock()
	w := n.between(client, server)
	change(w)
	close(w.changed)
	w.changed = make(chan struct{})
	var broken []*conn
	if w.cut {
		for c := range n.conns {
			if c.client == client && c.server == server {
				broken = append(broken, c)
			}
		}
	}
	n.mu.Unlock()
	for _, c := range broken {
		c.reset()
	}
}

// crash breaks all connections of a server and has nobody listen.
func (n *network) crash(server string) {
	n.mu.Lock()
	l := n.listeners[server]
	delete(n.listeners, server)
	var broken []*conn
	for c := range n.conns {
		if c.server == server {
			broken = append(broken, c)
		}
	}
	n.mu.Unlock()
	if l != nil {
		_ = l.Close()
	}
	for _, c := range broken {
		c.reset()
	}
}

func (n *network) dial(ctx context.Context, client, server string) (net.Conn, error) {
	for {
		n.mu.Lock()
		w, l := n.between(client, server), n.listeners[server]
		changed, held, cut, latency := w.changed, w.held, w.cut, w.latency
		n.mu.Unlock()
		if held {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if err := sleep(ctx, latency); err != nil {
			return nil, err
		}
		switch {
		case cut:
			return nil, errCut
		case l == nil:
			return nil, errNobody
		}
		near, far := n.pair(client, server)
		select {
		case l.queue <- far:
			return near, nil
		case <-l.closed:
			near.reset()
			return nil, errNobody
		case <-ctx.Done():
			near.reset()
			return nil, ctx.Err()
		}
	}
}

func (n *network) listen(server string) *listener {
	l := &listener{queue: make(chan *conn), closed: make(chan struct{}), addr: address(server)}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[server] = l
	return l
}

type listener struct {
	queue  chan *conn
	closed chan struct{}
	once   sync.Once
	addr   address
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

type address string

func (address) Network() string  { return "simulated" }
func (a address) String() string { return string(a) }

// conn is one end of a connection.
type conn struct {
	n              *network
	client, server string
	in, out        *stream
	peer           *conn
	readBy         deadline
	writeBy        deadline
}

// stream is one direction: what was sent, and when it arrives.
type stream struct {
	mu     sync.Mutex
	parts  []part
	size   int
	closed bool  // no more will be sent
	err    error // the connection broke, or its reader has gone
	bell   chan struct{}
}

type part struct {
	data []byte
	sent time.Time
}

// window is how much may be under way in one direction.
const window = 64 << 10

func (s *stream) ring() {
	close(s.bell)
	s.bell = make(chan struct{})
}

func (n *network) pair(client, server string) (near, far *conn) {
	up, down := &stream{bell: make(chan struct{})}, &stream{bell: make(chan struct{})}
	near = &conn{n: n, client: client, server: server, in: down, out: up}
	far = &conn{n: n, client: client, server: server, in: up, out: down, peer: near}
	near.peer = far
	near.readBy.init()
	near.writeBy.init()
	far.readBy.init()
	far.writeBy.init()
	n.mu.Lock()
	n.conns[near] = true
	n.mu.Unlock()
	return near, far
}

func (c *conn) way() (latency time.Duration, held bool, changed chan struct{}) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	w := c.n.between(c.client, c.server)
	return w.latency, w.held, w.changed
}

func (c *conn) Read(p []byte) (int, error) {
	for {
		latency, held, changed := c.way()
		until, moved := c.readBy.get()
		now := time.Now()
		if !until.IsZero() && !now.Before(until) {
			return 0, os.ErrDeadlineExceeded
		}
		s := c.in
		s.mu.Lock()
		bell := s.bell
		if s.err != nil {
			err := s.err
			s.mu.Unlock()
			return 0, err
		}
		due := time.Duration(-1)
		switch {
		case len(s.parts) > 0:
			due = s.parts[0].sent.Add(latency).Sub(now)
			if due <= 0 && !held {
				n := 0
				for n < len(p) && len(s.parts) > 0 && !s.parts[0].sent.Add(latency).After(now) {
					first := &s.parts[0]
					m := copy(p[n:], first.data)
					n += m
					if first.data = first.data[m:]; len(first.data) == 0 {
						s.parts = s.parts[1:]
					}
				}
				s.size -= n
				s.ring()
				s.mu.Unlock()
				return n, nil
			}
		case s.closed && !held:
			s.mu.Unlock()
			return 0, io.EOF
		}
		s.mu.Unlock()
		if held {
			due = -1
		}
		wait(due, until, now, bell, changed, moved)
	}
}

func (c *conn) Write(p []byte) (int, error) {
	sent := 0
	for {
		until, moved := c.writeBy.get()
		now := time.Now()
		if !until.IsZero() && !now.Before(until) {
			return sent, os.ErrDeadlineExceeded
		}
		s := c.out
		s.mu.Lock()
		switch {
		case s.err != nil:
			err := s.err
			s.mu.Unlock()
			return sent, err
		case s.closed:
			s.mu.Unlock()
			return sent, net.ErrClosed
		}
		if room := window - s.size; room > 0 {
			m := min(room, len(p)-sent)
			s.parts = append(s.parts, part{append([]byte(nil), p[sent:sent+m]...), now})
			s.size += m
			sent += m
			s.ring()
		}
		bell := s.bell
		s.mu.Unlock()
		if sent == len(p) {
			return sent, nil
		}
		wait(-1, until, now, bell, nil, moved)
	}
}

// wait returns when something may have changed.
func wait(due time.Duration, until, now time.Time, bells ...chan struct{}) {
	if !until.IsZero() && (due < 0 || until.Sub(now) < due) {
		due = until.Sub(now)
	}
	var timeout <-chan time.Time
	if due >= 0 {
		timer := time.NewTimer(due)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-timeout:
	case <-bells[0]:
	case <-bells[1]:
	case <-bells[2]:
	}
}

// reset breaks the connection at both ends.
func (c *conn) reset() {
	for _, s := range []*stream{c.in, c.out} {
		s.mu.Lock()
		if s.err == nil {
			s.err = errReset
			s.parts = nil
			s.ring()
		}
		s.mu.Unlock()
	}
	c.forget()
}

func (c *conn) forget() {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	delete(c.n.conns, c)
	delete(c.n.conns, c.peer)
}

func (c *conn) Close() error {
	c.out.mu.Lock()
	c.out.closed = true
	c.out.ring()
	c.out.mu.Unlock()
	c.in.mu.Lock()
	if c.in.err == nil {
		c.in.err = net.ErrClosed
		c.in.ring()
	}
	c.in.mu.Unlock()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return address(c.server) }
func (c *conn) RemoteAddr() net.Addr { return address("192.0.2.1:1234") }

func (c *conn) SetDeadline(t time.Time) error {
	c.readBy.set(t)
	c.writeBy.set(t)
	return nil
}
func (c *conn) SetReadDeadline(t time.Time) error  { c.readBy.set(t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.writeBy.set(t); return nil }

type deadline struct {
	mu    sync.Mutex
	at    time.Time
	moved chan struct{}
}

func (d *deadline) init() { d.moved = make(chan struct{}) }

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	close(d.moved)
	d.moved = make(chan struct{})
}

func (d *deadline) get() (time.Time, chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at, d.moved
}
