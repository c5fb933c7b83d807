package examples_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// startLikeTraefik does what the reference of Traefik v3 (ForwardAuth) says that
// Traefik does with our configuration: the question is a GET with the client's
// headers and five of Traefik's own; an answer of 2xx gives the request the
// headers of authResponseHeaders, and its answer the cookies of
// addAuthCookiesToResponse; any other is the client's.
func startLikeTraefik(t *testing.T, auth *authority, up *service) string {
	text, err := os.ReadFile(filepath.Join("gateway", "traefik.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "trustForwardHeader:") || strings.Count(string(text), "authResponseHeaders: [Authorization]") != 3 ||
		strings.Count(string(text), "addAuthCookiesToResponse: [__Host-counterfoil-at]") != 3 || strings.Count(string(text), `X-Original-Method: ""`) != 1 {
		t.Error("traefik.yml is not the one that this was written for")
	}
	questions := map[string]string{"/admin/": "?role=admin&live=1", "/account/": "?max_auth_age=10m&max_feed_age=1s"}
	for _, rules := range questions {
		if !strings.Contains(string(text), "/v1/gateway"+rules+"\n") {
			t.Errorf("traefik.yml does not ask with %s", rules)
		}
	}
	toService, toCounterfoil := keepingHost(parsed(t, up.URL)), keepingHost(parsed(t, auth.url))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/auth/") {
			toCounterfoil.ServeHTTP(w, r)
			return
		}
		r.Header.Del("X-Original-Method") // the middleware "method"
		address := auth.url + "/v1/gateway"
		for prefix, rules := range questions {
			if strings.HasPrefix(r.URL.Path, prefix) {
				address += rules
			}
		}
		answer, err := forwardAuth(r, address)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		defer answer.Body.Close()
		if answer.StatusCode < 200 || answer.StatusCode > 299 {
			for name, values := range answer.Header {
				w.Header()[name] = values
			}
			w.WriteHeader(answer.StatusCode)
			_, _ = io.Copy(w, answer.Body)
			return
		}
		r.Header["Authorization"] = answer.Header["Authorization"]
		for _, c := range answer.Cookies() {
			if c.Name == "__Host-counterfoil-at" {
				w.Header().Add("Set-Cookie", c.Raw)
			}
		}
		r.Header.Del("Cookie") // the middleware "no-cookie"
		toService.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func forwardAuth(r *http.Request, address string) (*http.Response, error) {
	question, err := http.NewRequestWithContext(r.Context(), http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	for name, values := range r.Header {
		if !slices.Contains([]string{"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length"}, name) {
			question.Header[name] = values
		}
	}
	for name, value := range map[string]string{
		"X-Forwarded-Method": r.Method, "X-Forwarded-Proto": "http", "X-Forwarded-Host": r.Host, "X-Forwarded-Uri": r.RequestURI, "X-Forwarded-For": "127.0.0.1",
	} {
		question.Header.Set(name, value)
	}
	return http.DefaultTransport.RoundTrip(question)
}

func parsed(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
