package httpapi_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/httpapi"
)

// serveLimited serves the site with the limits of Server, timeouts cut short.
func serveLimited(t *testing.T, s *site) (*http.Server, string) {
	t.Helper()
	server := httpapi.Server(s.handler)
	if server.ReadHeaderTimeout <= 0 || server.ReadTimeout <= 0 || server.WriteTimeout <= 0 || server.IdleTimeout <= 0 {
		t.Errorf("SEC-117: a limit is not set: %+v", server)
	}
	server.ReadHeaderTimeout, server.ReadTimeout = 100*time.Millisecond, 200*time.Millisecond
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return server, listener.Addr().String()
}

func TestSEC117Limits(t *testing.T) {
	s := newSite(t)
	_, address := serveLimited(t, s)
	exchange := func(request string) (*http.Response, error) {
		t.Helper()
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(conn, request); err != nil {
			return nil, err
		}
		return http.ReadResponse(bufio.NewReader(conn), nil)
	}
	// Headers beyond 16 KiB (net/http adds 4 KiB of slack).
	res, err := exchange("GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 24<<10) + "\r\n\r\n")
	if err != nil || res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("large headers: %v %v", res, err)
	}
	// Headers that never end: the connection is closed.
	if res, err := exchange("GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: "); err == nil && res.StatusCode == 200 {
		t.Errorf("endless headers: %v", res)
	}
	// A body that never comes.
	res, err = exchange("POST /v1/auth/sign-in HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	if err != nil || res.StatusCode != 400 {
		t.Errorf("slow body: %v %v", res, err)
	}
	// A body that is announced too long is refused before it is sent.
	res, err = exchange("POST /v1/auth/sign-in HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n")
	if err != nil || res.StatusCode != http.StatusRequestEntityTooLarge || !res.Close {
		t.Errorf("large body: %v %v", res, err)
	}
	// HEAD has no body on the wire, errors included.
	for _, path := range []string{"/healthz", "/nothing"} {
		res, err = exchange("HEAD " + path + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if err != nil || res.Header.Get("Content-Type") == "" {
			t.Errorf("HEAD %s: %v %v", path, res, err)
		}
	}
}
