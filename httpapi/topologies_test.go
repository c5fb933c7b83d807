package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// overTLS serves the site, and counts the requests that bring cookies and the
// answers that set some.
func (s *site) overTLS() (server *httptest.Server, cookies *atomic.Int64) {
	s.Helper()
	cookies = new(atomic.Int64)
	server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handler.ServeHTTP(w, r)
		if r.Header.Get("Cookie") != "" || w.Header().Get("Set-Cookie") != "" {
			cookies.Add(1)
		}
	}))
	s.Cleanup(server.Close)
	return server, cookies
}

// post sends JSON and reads JSON.
func post(t *testing.T, client *http.Client, url, bearer string, body any) (int, map[string]any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return res.StatusCode, out
}

// A native application keeps the session token itself: there are no cookies.
func TestNativeApplication(t *testing.T) {
	s := newSite(t)
	s.oneNode() // that a step-up elsewhere ends a stream is told in the root's tests
	server, cookies := s.overTLS()
	client, api := server.Client(), server.URL+"/v1/auth"
	status, up := post(t, client, api+"/sign-up", "", map[string]any{"email": "ann@example.org", "password": goodWord, "transport": "body"})
	token, _ := up["session_token"].(string)
	if status != 201 || !strings.HasPrefix(token, "cf_st_") {
		t.Fatalf("sign-up: %d %v", status, up)
	}
	status, fresh := post(t, client, api+"/refresh", token, map[string]any{"audience": "orders", "active": true})
	if status != 200 || fresh["session_token"] != nil {
		t.Fatalf("refresh: %d %v", status, fresh)
	}
	v, err := s.auth.Verifier("orders")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Check(t.Context(), fresh["access_token"].(string)); err != nil {
		t.Error(err)
	}
	stream := openStream(t, client, server.URL, "Authorization", "Bearer "+token)
	stream.wants("hello")
	// A step-up gives another session token; the old one is dead.
	status, up = post(t, client, api+"/step-up", token, map[string]any{"password": goodWord})
	next, _ := up["session_token"].(string)
	if status != 200 || next == "" {
		t.Fatalf("step-up: %d %v", status, up)
	}
	if status, old := post(t, client, api+"/refresh", token, struct{}{}); status != 401 || old["code"] != "session_unknown" {
		t.Errorf("the token before the step-up: %d %v", status, old)
	}
	if name, data := stream.next(); name != "" {
		t.Errorf("a stream opened with the token before the step-up goes on: %s %v", name, data)
	}
	stream = openStream(t, client, server.URL, "Authorization", "Bearer "+next)
	stream.wants("hello")
	if status, _ := post(t, client, api+"/sign-out", next, struct{}{}); status != 204 {
		t.Errorf("sign-out: %d", status)
	}
	if end := stream.wants("ended"); end["reason"] != "signed_out" {
		t.Errorf("ended %v", end)
	}
	if n := cookies.Load(); n != 0 {
		t.Errorf("%d cookies", n)
	}
}

// Another site: its own backend has the API key, checks its own users, and
// sets a cookie of its own. The browser never talks to the authority.
func TestAnotherSiteThroughItsOwnBackend(t *testing.T) {
	s := newSite(t)
	server, cookies := s.overTLS()
	call := func(path string, body any) (int, map[string]any) {
		return post(t, server.Client(), server.URL+path, s.key, body)
	}
	shop := http.NewServeMux()
	shop.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		status, grant := call("/v1/sessions", map[string]any{"subject": "shop-7", "amr": []string{"pwd"}, "device": map[string]any{"user_agent": r.UserAgent(), "ip": "203.0.113.9"}})
		if status != 201 {
			t.Errorf("start: %d %v", status, grant)
		}
		w.Header().Set("Cache-Control", "private, no-store")
		w.Header().Add("Set-Cookie", grant["set_cookie"].(string))
	})
	shop.HandleFunc("GET /account", func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie(cookie)
		if err != nil {
			http.Error(w, "signed out", http.StatusUnauthorized)
			return
		}
		status, answer := call("/v1/sessions/authenticate", map[string]any{"session_token": c.Value})
		if status != http.StatusOK {
			http.Error(w, fmt.Sprint(answer["reason"]), http.StatusUnauthorized)
			return
		}
		v, err := s.auth.Verifier("")
		if err != nil {
			t.Error(err)
			return
		}
		claims, err := v.Check(r.Context(), answer["access_token"].(string))
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(w, claims.Subject)
	})
	front := httptest.NewTLSServer(shop)
	defer front.Close()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := front.Client()
	browser.Jar = jar
	visit := func(want int, text string) {
		t.Helper()
		res, err := browser.Get(front.URL + "/account")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != want || strings.TrimSpace(string(body)) != text {
			t.Errorf("%d %q %v, want %d %q", res.StatusCode, body, err, want, text)
		}
	}
	visit(401, "signed out")
	res, err := browser.Post(front.URL+"/login", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if set := res.Cookies(); len(set) != 1 || set[0].Domain != "" || !set[0].Secure || !set[0].HttpOnly || set[0].SameSite != http.SameSiteLaxMode { // SEC-07
		t.Errorf("cookies %v", set)
	}
	visit(200, "shop-7")
	visit(200, "shop-7")
	s.wants(s.backend("DELETE /v1/users/shop-7/sessions?reason=account_disabled", ""), 204)
	visit(401, "account_disabled")
	if n := cookies.Load(); n != 0 {
		t.Errorf("the authority saw %d cookies", n)
	}
}
