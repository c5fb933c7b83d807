package httpapi_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/httpapi"
)

// pipes are a network within a test, on which simulated time passes.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "192.0.2.7:4711" }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// selfSigned makes a certificate of hosts, and the digest of its key that
// --ignore-certificate-errors-spki-list takes.
func selfSigned(t testing.TB, hosts ...string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: hosts, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, base64.StdEncoding.EncodeToString(digest[:])
}

// overPipes serves the site as the binary does, with all limits, on simulated
// time, by HTTP/1.1 or, over TLS, HTTP/2.
func (s *site) overPipes(two bool) (*http.Server, *http.Client) {
	s.Helper()
	network := newPipes()
	server := httpapi.Server(s.handler)
	transport := &http.Transport{DialContext: network.dial, MaxConnsPerHost: 0}
	var done sync.WaitGroup
	if two {
		cert, _ := selfSigned(s, "app.example")
		pool := x509.NewCertPool()
		pool.AddCert(cert.Leaf)
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
		transport.TLSClientConfig, transport.ForceAttemptHTTP2 = &tls.Config{RootCAs: pool}, true
		done.Go(func() { _ = server.ServeTLS(network, "", "") })
	} else {
		done.Go(func() { _ = server.Serve(network) })
	}
	s.Cleanup(func() {
		_ = server.Close()
		transport.CloseIdleConnections()
		done.Wait()
	})
	return server, &http.Client{Transport: transport}
}
