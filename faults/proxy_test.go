//go:build linux

package faults

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// proxy is the network between two processes. It passes connections on, until
// it is told to lose what is sent.
type proxy struct {
	listener net.Listener
	target   string

	mu     sync.Mutex
	open   map[*link]bool
	closed bool
	there  bool // what is sent towards the target arrives
	back   bool // and what it answers
	links  sync.WaitGroup
}

// link is one connection through a proxy. Once something was lost nothing
// passes any more, as after a router has forgotten it: neither side is told.
type link struct {
	client, server net.Conn
	dead           bool // under the proxy's lock
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, open: map[*link]bool{}, there: true, back: true}
	p.links.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		l := &link{client: conn}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			_ = conn.Close()
			return
		}
		p.open[l] = true
		p.links.Go(func() { p.join(l) })
		p.mu.Unlock()
	}
}

// join carries a connection until one side ends it.
func (p *proxy) join(l *link) {
	server, err := net.Dial("tcp", p.target)
	p.mu.Lock()
	l.server = server
	refused := err != nil || p.closed
	p.mu.Unlock()
	if refused {
		p.end(l)
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.carry(l, server, l.client, &p.there) })
	both.Go(func() { p.carry(l, l.client, server, &p.back) })
	both.Wait()
	p.end(l)
}

// carry copies one direction. What a dead link is sent is swallowed, its end too.
func (p *proxy) carry(l *link, to, from net.Conn, passes *bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		l.dead = l.dead || !*passes
		dead := l.dead
		p.mu.Unlock()
		if dead {
			if err != nil {
				return
			}
			continue
		}
		if n > 0 {
			if _, failed := to.Write(buffer[:n]); failed != nil {
				err = failed
			}
		}
		if err != nil {
			// The other side hears of it: this is no fault of the network.
			if errors.Is(err, io.EOF) {
				if half, ok := to.(*net.TCPConn); ok && half.CloseWrite() == nil {
					return
				}
			}
			p.end(l)
			return
		}
	}
}

func (p *proxy) end(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = l.client.Close()
	if l.server != nil {
		_ = l.server.Close()
	}
	delete(p.open, l)
}

// cut loses what is sent from now on, in the directions that do not pass.
// Connections stay open on both sides; new ones are taken, as by a network
// that is slow to say otherwise.
func (p *proxy) cut(there, back bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.there, p.back = there, back
}

// heal lets new connections through. Those that lost something stay silent.
func (p *proxy) heal() { p.cut(true, true) }

// forget makes every open connection silent for good, while new ones pass.
func (p *proxy) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.open {
		l.dead = true
	}
}

func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	all := make([]*link, 0, len(p.open))
	for l := range p.open {
		all = append(all, l)
	}
	p.mu.Unlock()
	for _, l := range all {
		p.end(l)
	}
	p.links.Wait()
}
