package examples_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

// service is the upstream behind a proxy: it knows nothing of sessions, and
// verifies the access token that it is sent.
type service struct {
	*httptest.Server
	mu   sync.Mutex
	seen []*http.Request // as they came
}

func startService(t *testing.T, authorityURL string) *service {
	t.Helper()
	v, err := verify.New(t.Context(), verify.Config{Issuer: issuer, Audience: "app", Authority: authorityURL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	s := &service{}
	guarded := v.Handler(func(w http.ResponseWriter, r *http.Request, c *verify.Claims) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Cache-Control", "public, max-age=3600")
		fmt.Fprintf(w, "%s %s for %s with %q", r.Method, r.URL, c.Subject, body)
	})
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r.Clone(t.Context()))
		s.mu.Unlock()
		guarded.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// took returns the requests that came since it was asked last.
func (s *service) took() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

// proxy returns the binary that a variable names.
func proxyBinary(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
			t.Fatalf("%s is not set", variable)
		}
		t.Skipf("%s is not set: run make test", variable)
	}
	return path
}

// freePort is an address on which nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// configure copies example files into a folder, with the addresses of the test.
func configure(t *testing.T, dir, listen string, auth *authority, up *service, names ...string) {
	t.Helper()
	addresses := strings.NewReplacer("127.0.0.1:8080", listen,
		"127.0.0.1:8700", strings.TrimPrefix(auth.url, "http://"), "127.0.0.1:8081", up.Listener.Addr().String())
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join("gateway", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, name, addresses.Replace(string(text)))
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// proxyDir is a folder that workers of another user may enter.
func proxyDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "counterfoil-proxy-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func startNginx(t *testing.T, auth *authority, up *service) (url string) {
	binary := proxyBinary(t, "COUNTERFOIL_TEST_NGINX")
	dir, listen := proxyDir(t), freePort(t)
	configure(t, dir, listen, auth, up, "nginx.conf", "gateway_question.conf")
	write(t, dir, "main.conf", `
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr notice;
events {}
http {
	access_log            off;
	client_body_temp_path body;
	proxy_temp_path       proxy;
	fastcgi_temp_path     fastcgi;
	uwsgi_temp_path       uwsgi;
	scgi_temp_path        scgi;
	include nginx.conf;
}
`)
	p := start(t, nil, binary, "-e", "stderr", "-p", dir, "-c", "main.conf")
	p.says(`start worker process (\d+)`)
	return "http://" + listen
}

func startCaddy(t *testing.T, auth *authority, up *service) (url string) {
	binary := proxyBinary(t, "COUNTERFOIL_TEST_CADDY")
	dir, listen := proxyDir(t), freePort(t)
	configure(t, dir, listen, auth, up, "Caddyfile")
	write(t, dir, "main", "{\n\tadmin off\n}\nimport Caddyfile\n")
	env := []string{"HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "XDG_DATA_HOME=" + dir}
	p := start(t, env, binary, "run", "--config", filepath.Join(dir, "main"), "--adapter", "caddyfile")
	p.says(`(serving initial configuration)`)
	return "http://" + listen
}

// The configurations that we show do what we say, in the proxies of Debian.
func TestGateway(t *testing.T) {
	for _, p := range []gatewayProxy{
		{name: "nginx", start: startNginx},
		{name: "Caddy", start: startCaddy, short: "/api/x"},
		{name: "Traefik", start: startTraefik, caches: true},
		{name: "as Traefik is documented", start: startLikeTraefik, caches: true},
		{name: "as Envoy is documented", start: startLikeEnvoy, caches: true},
	} {
		t.Run(p.name, func(t *testing.T) {
			auth := startAuthority(t, "--trusted-proxies", "127.0.0.1", "--origin", "https://friend.example")
			up := startService(t, auth.url)
			gatewayStory(t, auth, up, p.start(t, auth, up), p)
		})
	}
}

// gatewayProxy is a proxy with our configuration.
type gatewayProxy struct {
	name   string
	start  func(*testing.T, *authority, *service) (url string)
	short  string // a path where the browser does not receive its cookie
	caches bool   // it leaves to the service that no cache keeps an answer with a cookie
}

func gatewayStory(t *testing.T, auth *authority, up *service, url string, p gatewayProxy) {
	short := p.short
	signIn := func(subject string, roles ...string) (answer, string) {
		t.Helper()
		a := auth.post("/v1/sessions", object{"subject": subject, "roles": roles}).want(t, 201, "")
		return a, "__Host-counterfoil=" + a.SessionToken
	}
	refused := func(a answer, status int, code string) {
		t.Helper()
		a.want(t, status, code)
		if got := up.took(); len(got) > 0 {
			t.Errorf("a request that was refused came to the service: %s %s", got[0].Method, got[0].URL)
		}
		if a.Header.Get("Authorization") != "" || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("a refusal carries credentials: %v", a.Header)
		}
	}
	passed := func(a answer, text string) *http.Request {
		t.Helper()
		a.want(t, 200, "")
		got := up.took()
		if a.Text != text || len(got) != 1 {
			t.Fatalf("%q, %d requests at the service; want %q, one", a.Text, len(got), text)
		}
		if a.Header.Get("Authorization") != "" {
			t.Error("the client sees the access token")
		}
		return got[0]
	}

	// Signed out.
	refused(call(t, "GET", url+"/orders", nil), 401, "credential_missing")
	refused(call(t, "GET", url+"/orders", nil, "Cookie", "__Host-counterfoil=garbage"), 401, "session_unknown")
	if h := call(t, "GET", url+"/orders", nil).Header; h.Get("WWW-Authenticate") != `Bearer realm="counterfoil"` || !strings.Contains(h.Get("Cache-Control"), "no-store") {
		t.Errorf("%v", h)
	}

	// A cookie comes in, and the service verifies an access token; the browser
	// is given it to keep, and no cache is.
	ann, jar := signIn("ann")
	first := call(t, "GET", url+"/orders?a=1&role=x", nil, "Cookie", jar)
	r := passed(first, `GET /orders?a=1&role=x for ann with ""`)
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if len(r.Header.Values("Authorization")) != 1 || r.Header.Get("Cookie") != "" {
		t.Errorf("the service received %v", r.Header)
	}
	at, _, _ := strings.Cut(first.Header.Get("Set-Cookie"), ";")
	if at != "__Host-counterfoil-at="+token {
		t.Errorf("Set-Cookie %q", first.Header.Values("Set-Cookie"))
	}
	if cache := strings.Join(first.Header.Values("Cache-Control"), ", "); !p.caches && !strings.Contains(cache, "no-store") {
		t.Errorf("SEC-10: an answer that sets a credential has Cache-Control %q", cache)
	}
	second := call(t, "GET", url+"/orders", nil, "Cookie", jar+"; "+at)
	r = passed(second, `GET /orders for ann with ""`)
	if r.Header.Get("Authorization") != "Bearer "+token || len(second.Header.Values("Set-Cookie")) > 0 || second.Header.Get("Cache-Control") != "public, max-age=3600" {
		t.Errorf("with both cookies: %v", second.Header)
	}
	if short != "" {
		a := call(t, "GET", url+short, nil, "Cookie", jar)
		if passed(a, `GET `+short+` for ann with ""`); len(a.Header.Values("Set-Cookie")) > 0 {
			t.Errorf("%v", a.Header)
		}
	}
	// Clients that send an access token themselves.
	r = passed(call(t, "GET", url+"/orders", nil, "Authorization", "Bearer "+ann.AccessToken), `GET /orders for ann with ""`)
	if r.Header.Get("Authorization") != "Bearer "+ann.AccessToken {
		t.Error("another access token than the client's")
	}

	// Forged headers do not reach the service in the place of the gateway's.
	for _, path := range []string{"/orders", short} {
		if path == "" {
			continue
		}
		a := call(t, "GET", url+path, nil, "Cookie", jar+"; "+at, "Authorization", "Basic Zm9yZ2Vk", "Counterfoil-Rules", "none", "X-Original-Method", "POST")
		r = passed(a, `GET `+path+` for ann with ""`)
		if got := r.Header.Values("Authorization"); len(got) != 1 || !strings.HasPrefix(got[0], "Bearer ey") {
			t.Errorf("%s: a forged Authorization reached the service: %q", path, got)
		}
		refused(call(t, "GET", url+path, nil, "Cookie", jar, "Authorization", "Bearer x.y.z"), 401, "token_invalid")
	}

	// A route's rules.
	refused(call(t, "GET", url+"/admin/x?role=", nil, "Cookie", jar), 403, "insufficient_scope")
	_, admin := signIn("ada", "admin")
	passed(call(t, "GET", url+"/admin/x?role=", nil, "Cookie", admin), `GET /admin/x?role= for ada with ""`)

	// RFC 9470: the challenge reaches the client whole, with either credential.
	passed(call(t, "GET", url+"/account/x", nil, "Cookie", jar), `GET /account/x for ann with ""`)
	old := auth.post("/v1/sessions", object{"subject": "ida", "auth_time": time.Now().Add(-time.Hour).Unix()}).want(t, 201, "")
	for _, header := range [][]string{{"Cookie", "__Host-counterfoil=" + old.SessionToken}, {"Authorization", "Bearer " + old.AccessToken}} {
		a := call(t, "GET", url+"/account/x", nil, header...)
		refused(a, 401, "insufficient_user_authentication")
		challenge := a.Header.Values("WWW-Authenticate")
		if len(challenge) != 1 || !strings.Contains(challenge[0], `error="insufficient_user_authentication"`) || !strings.Contains(challenge[0], `max_age="600"`) {
			t.Errorf("the challenge of RFC 9470 is %q", challenge)
		}
		passed(call(t, "GET", url+"/orders", nil, header...), `GET /orders for ida with ""`)
	}

	// SEC-98: another site's POST is refused, whatever headers it wears; the site's own arrives with its body.
	host := strings.TrimPrefix(url, "http://")
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
		{"Origin", "https://evil.example", "X-Forwarded-Host", "evil.example"}, {"Sec-Fetch-Site", "cross-site", "X-Forwarded-Method", "GET", "X-Original-Method", "GET"},
	} {
		refused(call(t, "POST", url+"/orders", object{"n": 1}, append(header, "Cookie", jar)...), 403, "invalid_request")
	}
	for _, header := range [][]string{{"Sec-Fetch-Site", "same-origin"}, {"Origin", "https://" + host}, {"Origin", "https://friend.example"}, {"X-None", "of a browser"}} {
		passed(call(t, "POST", url+"/orders", object{"n": 1}, append(header, "Cookie", jar)...), `POST /orders for ann with "{\"n\":1}"`)
	}
	passed(call(t, "DELETE", url+"/orders", nil, "Cookie", jar, "Sec-Fetch-Site", "same-origin"), `DELETE /orders for ann with ""`)

	// The browser's own calls go past the gateway.
	call(t, "POST", url+"/v1/auth/refresh", object{}, "Cookie", jar, "Origin", "https://"+host).want(t, 200, "")

	// Ended: with either credential, at once.
	call(t, "DELETE", auth.url+"/v1/sessions/"+ann.Session.SID, nil, "Authorization", "Bearer "+auth.key).want(t, 204, "")
	refused(call(t, "GET", url+"/orders", nil, "Cookie", jar), 401, "session_revoked")
	refused(call(t, "GET", url+"/orders", nil, "Cookie", jar+"; "+at), 401, "session_revoked")
	refused(call(t, "GET", url+"/orders", nil, "Authorization", "Bearer "+token), 401, "token_revoked")

	// No authority, no answer: nobody is let through.
	auth.stop()
	if a := call(t, "GET", url+"/orders", nil, "Cookie", admin); a.Status < 500 || len(up.took()) > 0 {
		t.Errorf("without the authority: %d %s", a.Status, a.Text)
	}
}
