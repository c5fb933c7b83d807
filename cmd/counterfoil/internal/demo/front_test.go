package demo

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/memstore"
	"github.com/counterfoil/counterfoil/verify"
)

// house is the three of them in one process: the page's server, an authority
// and the protected service, each on a port of its own.
type house struct {
	url       string // of the page's server
	orders    string
	authority *httptest.Server
	auth      *counterfoil.Authority
	user      directory.User
}

func newHouse(t *testing.T) *house {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	h := &house{url: "http://localhost:" + port}
	quiet := slog.New(slog.DiscardHandler)
	store := memstore.New()
	h.auth, err = counterfoil.New(t.Context(), store, counterfoil.Config{
		Issuer: h.url, Audiences: []string{Audience}, Seal: counterfoil.SealSecrets(make([]byte, 32)), Logger: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.auth.Close(); err != nil {
			t.Error(err)
		}
	})
	users, err := directory.New(h.auth, store.Users(), directory.Config{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if h.user, err = users.Create(t.Context(), directory.NewUser{Email: Ada.Email}); err != nil {
		t.Fatal(err)
	}
	h.authority = httptest.NewServer(httpapi.Handler(h.auth, httpapi.WithDirectory(users)))
	t.Cleanup(h.authority.Close)
	key, _, err := h.auth.CreateAPIKey(t.Context(), counterfoil.NewAPIKey{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- ServeOrders(ctx, OrdersConfig{Issuer: h.url, Authority: h.authority.URL, APIKey: key.Reveal(), MaxFeedAge: 1}, quiet, func(told any) error {
			ready <- told.(OrdersReady).Address
			return nil
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case h.orders = <-ready:
	case err := <-ended:
		t.Fatal(err)
	}

	address := strings.TrimPrefix(h.authority.URL, "http://")
	front := &Front{Issuer: h.url, OrdersAddress: h.orders, Switch: NewSwitch(nil, address, nil), APIKey: key.Reveal(), Log: quiet}
	handler, err := front.Handler()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return h
}

// ask sends a request and returns the answer with its body.
func ask(t *testing.T, method, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	if body != "" && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

func TestFrontAnswersForItsHostOnly(t *testing.T) {
	h := newHouse(t)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(h.url, "http://"))
	for _, c := range []struct {
		name, method, path, host string
		status                   int
	}{
		{"its name", "GET", "/", "localhost:" + port, http.StatusOK},
		{"its address", "GET", "/", "127.0.0.1:" + port, http.StatusFound},
		{"its address, not the page", "GET", "/demo/users/x", "127.0.0.1:" + port, http.StatusMisdirectedRequest},
		{"a name that leads here", "GET", "/", "evil.example:" + port, http.StatusMisdirectedRequest},
		{"another port", "GET", "/", "localhost:1", http.StatusMisdirectedRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			if res, _ := ask(t, c.method, h.url+c.path, "", "Host", c.host); res.StatusCode != c.status {
				t.Errorf("got %s, want %d", res.Status, c.status)
			}
		})
	}
}

// SEC-99, SEC-102, SEC-103: what protects the page's server from other pages.
func TestFrontProtection(t *testing.T) {
	h := newHouse(t)
	for _, path := range []string{"/demo/authority", "/demo/phone", "/api/feed", "/demo/users/x/roles", "/phone/v1/auth/sign-out", "/v1/auth/sign-in"} {
		res, _ := ask(t, "POST", h.url+path, "{}", "Origin", "https://evil.example")
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("SEC-99: POST %s from another origin: %s, want 403", path, res.Status)
		}
	}
	for _, path := range []string{"/", "/assets/app.js", "/assets/counterfoil.css", "/assets/mark.svg"} {
		res, body := ask(t, "GET", h.url+path, "")
		if res.StatusCode != http.StatusOK || body == "" {
			t.Errorf("GET %s: %s", path, res.Status)
		}
		csp := res.Header.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "base-uri 'none'", "frame-ancestors 'none'"} {
			if !strings.Contains(csp, part) {
				t.Errorf("SEC-102: GET %s: the policy %q lacks %s", path, csp, part)
			}
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("SEC-103: GET %s: %s is %q, want %q", path, name, got, want)
			}
		}
	}
	for _, path := range []string{"/assets/", "/assets/page.htm", "/v1/users", "/oauth2/introspect", "/nowhere"} {
		if res, _ := ask(t, "GET", h.url+path, ""); res.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: %s, want 404", path, res.Status)
		}
	}
}

// The second device: its session token never reaches the page.
func TestPhone(t *testing.T) {
	h := newHouse(t)
	res, body := ask(t, "POST", h.url+"/demo/phone", `{"subject":"`+h.user.ID+`"}`)
	if res.StatusCode != http.StatusCreated || !strings.Contains(body, `"access_token"`) {
		t.Fatalf("%s %s", res.Status, body)
	}
	if strings.Contains(body, "cf_st_") || res.Header.Get("Set-Cookie") != "" {
		t.Error("SEC-104: the session token was handed to the page")
	}
	// Whatever the page sends along, it is this device that refreshes.
	res, body = ask(t, "POST", h.url+"/phone/v1/auth/refresh", "{}", "Authorization", "Bearer cf_st_other", "Cookie", "__Host-counterfoil=cf_st_other")
	if res.StatusCode != http.StatusOK || strings.Contains(body, "cf_st_") {
		t.Errorf("refresh: %s %s", res.Status, body)
	}
	if res, _ = ask(t, "POST", h.url+"/phone/v1/auth/sign-out", "{}"); res.StatusCode != http.StatusNoContent {
		t.Errorf("sign-out: %s", res.Status)
	}
	if res, body = ask(t, "POST", h.url+"/phone/v1/auth/refresh", "{}"); res.StatusCode != http.StatusUnauthorized || !strings.Contains(body, verify.CodeSessionRevoked) {
		t.Errorf("refresh after sign-out: %s %s", res.Status, body)
	}
}

func TestOperator(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct {
		name, path, body string
		status           int
	}{
		{"give", "/demo/users/" + h.user.ID + "/roles", `{"roles":["admin"]}`, http.StatusOK},
		{"take", "/demo/users/" + h.user.ID + "/roles", `{"roles":[]}`, http.StatusOK},
		{"take with null", "/demo/users/" + h.user.ID + "/roles", `{"roles":null}`, http.StatusOK},
		{"nobody", "/demo/users/nobody/roles", `{"roles":[]}`, http.StatusNotFound},
		{"a path in the id", "/demo/users/..%2f..%2fsessions/roles", `{"roles":[]}`, http.StatusNotFound},
		{"no JSON", "/demo/users/x/roles", `roles`, http.StatusBadRequest},
		{"unknown member", "/demo/users/x/roles", `{"role":"admin"}`, http.StatusBadRequest},
		{"too large", "/demo/users/x/roles", `{"roles":["` + strings.Repeat("x", 8<<10) + `"]}`, http.StatusBadRequest},
		{"phone of nobody", "/demo/phone", `{"subject":""}`, http.StatusBadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, body := ask(t, "POST", h.url+c.path, c.body)
			if res.StatusCode != c.status {
				t.Errorf("%s %s, want %d", res.Status, body, c.status)
			}
		})
	}
	h.authority.Close()
	res, body := ask(t, "POST", h.url+"/demo/phone", `{"subject":"`+h.user.ID+`"}`)
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("without the authority: %s %s, want 503 with Retry-After", res.Status, body)
	}
}

// What a call costs, as the service tells it.
func TestOrdersTellTheirCost(t *testing.T) {
	h := newHouse(t)
	grant, err := h.auth.StartSession(t.Context(), counterfoil.SignIn{Subject: h.user.ID, Device: &counterfoil.Device{}})
	if err != nil {
		t.Fatal(err)
	}
	call := func(name, method, path, token string, status int, code, asked string) {
		t.Helper()
		res, body := ask(t, method, h.url+"/api"+path, "", "Authorization", "Bearer "+token)
		var problem struct{ Code string }
		if err := json.Unmarshal([]byte(body), &problem); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if res.StatusCode != status || problem.Code != code || res.Header.Get(CallsHeader) != asked {
			t.Errorf("%s: %d %q after %q calls, want %d %q after %q", name, res.StatusCode, problem.Code, res.Header.Get(CallsHeader), status, code, asked)
		}
		if !strings.HasPrefix(res.Header.Get("Server-Timing"), "verify;dur=") {
			t.Errorf("%s: Server-Timing is %q", name, res.Header.Get("Server-Timing"))
		}
	}
	token := grant.AccessToken
	call("local", "GET", "/orders", token, 200, "", "0")
	call("live", "POST", "/payments", token, 201, "", "1")
	call("role", "GET", "/report", token, 403, verify.CodeInsufficientScope, "0")
	call("garbage", "POST", "/payments", "garbage", 401, verify.CodeTokenInvalid, "0")
	// No feed is as young as a nanosecond.
	call("feed too old", "GET", "/balance", token, 200, "", "1")

	// The service is another one than the one that revokes: the feed tells it,
	// and it ends the stream.
	end := h.watch(t, token)
	before := time.Now().UnixMicro()
	if err := h.auth.RevokeSession(t.Context(), grant.Session.ID, counterfoil.SignedOut); err != nil {
		t.Fatal(err)
	}
	if got := <-end; got.Code != verify.CodeTokenRevoked || got.At < before {
		t.Errorf("the watch ended with %+v, want %s after %d", got, verify.CodeTokenRevoked, before)
	}
	call("local after the end", "GET", "/orders", token, 401, verify.CodeTokenRevoked, "0")

	// Cut, it does not hear.
	if grant, err = h.auth.StartSession(t.Context(), counterfoil.SignIn{Subject: h.user.ID, Device: &counterfoil.Device{}}); err != nil {
		t.Fatal(err)
	}
	token = grant.AccessToken
	end = h.watch(t, token)
	if res, body := ask(t, "POST", h.url+"/api/feed", `{"cut":true}`); res.StatusCode != http.StatusOK || !strings.Contains(body, `"cut":true`) {
		t.Fatalf("cut: %s %s", res.Status, body)
	}
	if err := h.auth.RevokeSession(t.Context(), grant.Session.ID, counterfoil.SignedOut); err != nil {
		t.Fatal(err)
	}
	call("cut", "GET", "/orders", token, 200, "", "0")
	call("cut, a route that minds", "GET", "/balance", token, 401, verify.CodeTokenRevoked, "1")
	call("cut, live", "POST", "/payments", token, 401, verify.CodeTokenRevoked, "1")
	if res, body := ask(t, "POST", h.url+"/api/feed", `{"cut":false}`); res.StatusCode != http.StatusOK {
		t.Fatalf("restore: %s %s", res.Status, body)
	}
	if got := <-end; got.Code != verify.CodeTokenRevoked {
		t.Errorf("restored, the watch ended with %+v", got)
	}

	if grant, err = h.auth.StartSession(t.Context(), counterfoil.SignIn{Subject: h.user.ID, Device: &counterfoil.Device{}}); err != nil {
		t.Fatal(err)
	}
	token = grant.AccessToken
	h.authority.Close()
	call("local without the authority", "GET", "/orders", token, 200, "", "0")
	call("live without the authority", "POST", "/payments", token, 503, verify.CodeUnavailable, "1")
	call("old feed without the authority", "GET", "/balance", token, 503, verify.CodeUnavailable, "1")
}

// watch opens the stream that ends with the token. The channel tells how.
func (h *house) watch(t *testing.T, token string) <-chan watchEnd {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+"/api/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res, err)
	}
	ended := make(chan watchEnd, 1)
	go func() {
		defer res.Body.Close()
		var end watchEnd
		text, err := io.ReadAll(res.Body)
		_, data, _ := strings.Cut(string(text), "data: ")
		if err == nil {
			err = json.Unmarshal([]byte(data), &end)
		}
		if err != nil {
			end.Code = err.Error()
		}
		ended <- end
	}()
	return ended
}

func TestRun(t *testing.T) {
	t.Run("by hand", func(t *testing.T) {
		err := Run(t.Context(), strings.NewReader("hello\n"), io.Discard, func(context.Context, OrdersConfig, func(any) error) error {
			t.Error("it ran")
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "run counterfoil demo") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("ends with its parent", func(t *testing.T) {
		stdin, parent := io.Pipe()
		ended := make(chan error, 1)
		started := make(chan string, 1)
		go func() {
			ended <- Run(context.Background(), stdin, io.Discard, func(ctx context.Context, c OrdersConfig, _ func(any) error) error {
				started <- c.Issuer
				<-ctx.Done()
				return nil
			})
		}()
		if _, err := io.WriteString(parent, `{"Issuer":"http://localhost:1"}`); err != nil {
			t.Fatal(err)
		}
		if issuer := <-started; issuer != "http://localhost:1" {
			t.Errorf("told %q", issuer)
		}
		if err := parent.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
