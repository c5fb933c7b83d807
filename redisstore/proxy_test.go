package redisstore_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
)

// proxy stands before a server: it can lead to another one, and cut
// connections when it sees a text go by.
type proxy struct {
	listener net.Listener

	mu     sync.Mutex
	target string // empty: nobody is there
	cut    string // empty: nothing
	conns  map[net.Conn]bool
}

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, target: target, conns: map[net.Conn]bool{}}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			done.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.lead("")
		done.Wait()
	})
	return p
}

func (p *proxy) url() string { return "redis://" + p.listener.Addr().String() }

// lead sends everybody to another server; empty: to none.
func (p *proxy) lead(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
	for conn := range p.conns {
		conn.Close()
	}
}

// cutAt has the proxy cut all connections before a text gets through, and
// lead nowhere from then on.
func (p *proxy) cutAt(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = text
}

func (p *proxy) serve(from net.Conn) {
	defer from.Close()
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	to, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer to.Close()
	p.mu.Lock()
	alive := p.target == target
	p.conns[from], p.conns[to] = true, true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, from)
		delete(p.conns, to)
		p.mu.Unlock()
	}()
	if !alive {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(from, to)
		from.Close()
	})
	defer back.Wait()
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		p.mu.Lock()
		cut := p.cut != "" && bytes.Contains(buffer[:n], []byte(p.cut))
		if cut {
			p.cut = ""
		}
		p.mu.Unlock()
		if cut {
			p.lead("")
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}
