package main

import (
	"net"
	"sync"
)

// limit bounds the connections at once (SEC-117). More wait in the system's
// queue.
type limit struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once
}

func newLimit(l net.Listener, n int) *limit {
	return &limit{Listener: l, slots: make(chan struct{}, n), done: make(chan struct{})}
}

func (l *limit) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limited{Conn: conn, free: func() { <-l.slots }}, nil
}

func (l *limit) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

type limited struct {
	net.Conn
	once sync.Once
	free func()
}

func (c *limited) Close() error {
	c.once.Do(c.free)
	return c.Conn.Close()
}

// NetConn lets the feed reach the socket, to keep its send buffer small.
func (c *limited) NetConn() net.Conn { return c.Conn }
