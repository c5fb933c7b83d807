package httpapi_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/memstore"
)

// followOverHTTP reads up to the first beat, and returns the rest.
func followOverHTTP(t *testing.T, url, key, last string) (told string, rest *feed.Reader) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v1/revocations", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	h := resp.Header
	if resp.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Request-Id") == "" {
		t.Fatalf("%s %v", resp.Status, h)
	}
	rest = feed.NewReader(resp.Body)
	return untilBeat(t, rest), rest
}

func untilBeat(t *testing.T, r *feed.Reader) (told string) {
	t.Helper()
	for {
		f, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range f.Entries {
			told += e.Kind.String() + " " + e.ID + "\n"
		}
		if f.Kind == feed.Heartbeat {
			return told
		}
	}
}

func TestFeedOverHTTP(t *testing.T) {
	s := newSite(t)
	server := httptest.NewServer(s.handler)
	defer server.Close()
	verifier := s.apiKey(counterfoil.NewAPIKey{Name: "orders", Scopes: []string{counterfoil.ScopeVerify}})
	first := s.wants(s.backend("POST /v1/sessions", `{"subject":"u1"}`), 201).sid()
	second := s.wants(s.backend("POST /v1/sessions", `{"subject":"u1"}`), 201).sid()
	s.wants(s.backend("DELETE /v1/sessions/"+first, ""), 204)
	told, stream := followOverHTTP(t, server.URL, verifier, "")
	if told != "s "+first+"\n" {
		t.Errorf("the snapshot tells %q", told)
	}
	s.wants(s.backend("DELETE /v1/sessions/"+second, ""), 204)
	for !strings.Contains(told, second) {
		told = untilBeat(t, stream)
	}
	head, err := s.store.Feed().Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if told, _ = followOverHTTP(t, server.URL, verifier, fmt.Sprintf("%d.1", head.Timeline)); told != "s "+second+"\n" {
		t.Errorf("from position 1 the feed tells %q", told)
	}
	a := s.wants(s.do(ask{method: "GET /v1/revocations/clock", bearer: verifier}), 200)
	if c, err := feed.ParseClock(a.Body.Bytes()); err != nil || c.Node == "" {
		t.Errorf("%s: %v", a.Body, err)
	}
	for _, path := range []string{"/v1/revocations", "/v1/revocations/clock"} {
		s.wants(s.do(ask{method: "GET " + path}), 401, "credential_missing")
		s.wants(s.do(ask{method: "GET " + path, bearer: s.apiKey(counterfoil.NewAPIKey{Name: "x", Scopes: []string{"sessions"}})}), 403, "insufficient_scope")
	}
}

type pipeWriter struct {
	net.Conn
	header http.Header
}

func (p *pipeWriter) Header() http.Header { return p.header }
func (p *pipeWriter) WriteHeader(int)     {}
func (p *pipeWriter) FlushError() error   { return nil }

// A stream does not outlive the key that opened it.
func TestFeedEndsWithItsAPIKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		auth, err := counterfoil.New(t.Context(), memstore.New(), counterfoil.Config{
			Issuer: issuer, Audiences: []string{"app"}, Seal: counterfoil.SealSecrets(make([]byte, 32)),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer auth.Close()
		secret, key, err := auth.CreateAPIKey(t.Context(), counterfoil.NewAPIKey{Name: "orders", Scopes: []string{counterfoil.ScopeVerify}})
		if err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		defer here.Close()
		r := httptest.NewRequest(http.MethodGet, "/revocations", nil)
		r.Header.Set("Authorization", "Bearer "+secret.Reveal())
		var served sync.WaitGroup
		served.Go(func() {
			httpapi.Backend(auth).ServeHTTP(&pipeWriter{there, http.Header{}}, r)
			there.Close()
		})
		stream := feed.NewReader(here)
		for range 5000 { // more than five minutes
			untilBeat(t, stream)
		}
		revoked := time.Now()
		if err := auth.RevokeAPIKey(context.Background(), key.ID); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := stream.Next(); err != nil {
				break
			}
		}
		if took := time.Since(revoked); took > time.Minute+time.Second {
			t.Errorf("the stream went on for %s", took)
		}
		served.Wait()
	})
}
