package relay

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

// network joins handlers by their host's name, over pipes, so that a bubble of
// synctest holds all ends.
type network struct {
	mu    sync.Mutex
	hosts map[string]http.Handler
}

func newNetwork() *network { return &network{hosts: make(map[string]http.Handler)} }

func (n *network) host(name string, h http.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[name] = h
}

// link is the way of one client to others. It can be cut, which breaks
// connections, or shut, over which nothing comes any more.
type link struct {
	net *network

	mu    sync.Mutex
	cond  *sync.Cond
	down  bool
	shut  bool
	conns map[*linked]struct{}
}

func (n *network) link() *link {
	l := &link{net: n, conns: make(map[*linked]struct{})}
	l.cond = sync.NewCond(&l.mu)
	return l
}

func (l *link) transport() *http.Transport {
	return &http.Transport{DisableKeepAlives: true, DialContext: l.dial}
}

func (l *link) dial(_ context.Context, _, address string) (net.Conn, error) {
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	l.net.mu.Lock()
	h := l.net.hosts[name]
	l.net.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if h == nil || l.down {
		return nil, errors.New("planted: no connection")
	}
	here, there := net.Pipe()
	c := &linked{Conn: here, link: l}
	l.conns[c] = struct{}{}
	go func() {
		s := &http.Server{Handler: h}
		_ = s.Serve(&oneConn{there})
	}()
	return c, nil
}

// cut breaks all connections, and refuses new ones while down.
func (l *link) cut(down bool) {
	l.mu.Lock()
	conns := l.conns
	l.conns = make(map[*linked]struct{})
	l.down = down
	l.mu.Unlock()
	for c := range conns {
		_ = c.Conn.Close()
	}
}

// hold has nothing arrive, or lets all come that was held back.
func (l *link) hold(shut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shut = shut
	l.cond.Broadcast()
}

// linked is a connection over a link.
type linked struct {
	net.Conn
	link   *link
	closed bool
}

func (c *linked) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	for c.link.shut && !c.closed {
		c.link.cond.Wait()
	}
	return n, err
}

func (c *linked) Close() error {
	c.link.mu.Lock()
	c.closed = true
	delete(c.link.conns, c)
	c.link.cond.Broadcast()
	c.link.mu.Unlock()
	return c.Conn.Close()
}

// oneConn is a listener with one connection to give.
type oneConn struct{ conn net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// chain is an origin, relays behind one another, and a verifier at the end.
type chain struct {
	net    *network
	origin *origin
	relays []*Relay
	links  []*link // of each relay upwards, and of the leaf
	caches []string
	leaf   *verify.Verifier
}

func relayName(i int) string { return "relay-" + string(rune('0'+i)) }

// above is the address that relay i follows; that of the leaf is len(relays).
func above(i int) string {
	if i == 0 {
		return "http://origin"
	}
	return "http://" + relayName(i-1)
}

func newChain(t *testing.T, n int) *chain {
	t.Helper()
	c := &chain{net: newNetwork(), origin: newOrigin(t), caches: make([]string, n)}
	c.net.host("origin", c.origin)
	for i := range n {
		c.links = append(c.links, c.net.link())
		c.relays = append(c.relays, nil)
		c.startRelay(t, i)
	}
	c.links = append(c.links, c.net.link())
	c.leaf = c.newLeaf(t, above(n), newKey())
	t.Cleanup(c.close)
	return c
}

// close ends all there is, from below.
func (c *chain) close() {
	c.links[len(c.links)-1].hold(false)
	_ = c.leaf.Close()
	for i := len(c.relays) - 1; i >= 0; i-- {
		c.links[i].hold(false)
		_ = c.relays[i].Close()
	}
	c.origin.present().Close()
}

func (c *chain) startRelay(t *testing.T, i int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	r, err := New(ctx, Config{Issuer: testIssuer, Authorities: []string{above(i)}, APIKey: newKey(), Cache: c.caches[i],
		Transport: c.links[i].transport(), Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	c.relays[i] = r
	c.net.host(relayName(i), r)
}

// restartRelay ends one relay and starts another in its place. Nobody reaches
// it meanwhile.
func (c *chain) restartRelay(t *testing.T, i int) {
	t.Helper()
	c.net.host(relayName(i), nil)
	c.links[i+1].cut(false)
	if err := c.relays[i].Close(); err != nil {
		t.Error(err)
	}
	c.startRelay(t, i)
}

func (c *chain) newLeaf(t *testing.T, authority, key string) *verify.Verifier {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	v, err := verify.New(ctx, verify.Config{Issuer: testIssuer, Audience: testAudience, Authority: authority, APIKey: key,
		HTTPClient: &http.Client{Transport: c.links[len(c.links)-1].transport()}, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return v
}
