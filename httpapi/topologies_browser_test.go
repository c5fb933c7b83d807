package httpapi_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/verify"
)

// hosts is a server of several hosts, as browsers see them.
type hosts struct {
	port   string
	key    string   // that browsers are to trust
	byName sync.Map // name -> http.Handler
}

// startHosts listens. Handlers are added before the first request.
func startHosts(t *testing.T) *hosts {
	t.Helper()
	cert, key := selfSigned(t, "*.example.test", "evil.test", "*.example.test.evil.test")
	h := &hosts{key: key}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, h.port, err = net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server := httpapi.Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, _ := strings.Cut(r.Host, ":")
		if serve, ok := h.byName.Load(name); ok {
			serve.(http.Handler).ServeHTTP(w, r)
			return
		}
		blank(w, r)
	}))
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { _ = server.Close() })
	return h
}

func blank(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	fmt.Fprint(w, `<!doctype html><title>page</title><link rel="icon" href="data:,">`)
}

func (h *hosts) url(name string) string { return "https://" + name + ":" + h.port }

// shop is the application: a page, and a call that verifies access tokens.
func (h *hosts) shop(t *testing.T, s *site) *http.ServeMux {
	t.Helper()
	v, err := s.auth.Verifier("")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", blank)
	mux.Handle("GET /me", v.Handler(func(w http.ResponseWriter, _ *http.Request, c *verify.Claims) { fmt.Fprint(w, c.Subject) }))
	return mux
}

func (h *hosts) story(t *testing.T, api string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "node", "../test/node/topologies/story.mjs", api, h.port, h.key).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

func needChromium(t *testing.T) {
	t.Helper()
	for _, need := range []string{"COUNTERFOIL_TEST_CHROMIUM", "COUNTERFOIL_TEST_NODE_MODULES"} {
		if os.Getenv(need) == "" {
			if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
				t.Fatalf("%s is not set", need)
			}
			t.Skipf("%s is not set: make test sets it", need)
		}
	}
}

// One host: the application's server passes /auth/* on to the authority.
func TestOneHostInChromium(t *testing.T) {
	needChromium(t)
	t.Parallel()
	h := startHosts(t)
	s := newSite(t, func(c *counterfoil.Config) {
		c.Issuer = h.url("app.example.test")
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	binary := httptest.NewServer(httpapi.Handler(s.auth, httpapi.WithDirectory(s.users)))
	t.Cleanup(binary.Close)
	to, err := url.Parse(binary.URL)
	if err != nil {
		t.Fatal(err)
	}
	to.Path = "/v1/auth"
	app := h.shop(t, s)
	var shared atomic.Int64
	app.Handle("/auth/", http.StripPrefix("/auth", &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(r *http.Response) error {
			for name := range r.Header {
				if strings.HasPrefix(name, "Access-Control-") { // SEC-100
					shared.Add(1)
				}
			}
			return nil
		},
	}))
	h.byName.Store("app.example.test", app)
	h.story(t, h.url("app.example.test")+"/auth")
	if n := shared.Load(); n > 0 {
		t.Errorf("%d headers of CORS where all is one origin", n)
	}
}

// Two hosts of one site, and CORS between them.
func TestTwoHostsInChromium(t *testing.T) {
	needChromium(t)
	t.Parallel()
	h := startHosts(t)
	s := newSite(t, func(c *counterfoil.Config) { c.Issuer = h.url("auth.example.test") })
	friend := h.url("app.example.test")
	auth := httpapi.Handler(s.auth, httpapi.WithDirectory(s.users), httpapi.WithOrigins(friend))
	var named, others, withCookie, refused atomic.Int64
	h.byName.Store("auth.example.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth.ServeHTTP(w, r)
		// SEC-100: never reflected, never a wildcard.
		allowed, from := w.Header().Get("Access-Control-Allow-Origin"), r.Header.Get("Origin")
		switch {
		case from == friend:
			named.Add(1)
			if allowed != friend {
				t.Errorf("%s %s from %s: %q may read it", r.Method, r.URL.Path, from, allowed)
			}
		case from != "":
			others.Add(1)
			for name := range w.Header() {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s %s from %s: %s", r.Method, r.URL.Path, from, name)
				}
			}
			if strings.Contains(from, "sister.") && r.Header.Get("Cookie") != "" {
				withCookie.Add(1)
			}
			if w.Header().Get("Content-Type") == "application/problem+json" {
				refused.Add(1)
			}
		}
	}))
	h.byName.Store("app.example.test", h.shop(t, s))
	h.story(t, h.url("auth.example.test")+"/v1/auth")
	if named.Load() < 10 || others.Load() < 20 || refused.Load() < 10 {
		t.Errorf("%d requests of the named origin, %d of others, %d of them refused: the story told less than it should", named.Load(), others.Load(), refused.Load())
	}
	if withCookie.Load() == 0 {
		t.Error("the sister's requests brought no cookie: only the checks here stand against them, and they were not put to the test")
	}
}
