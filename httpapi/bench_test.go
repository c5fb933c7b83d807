package httpapi_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
)

func quiet(c *counterfoil.Config) { c.Logger = slog.New(slog.DiscardHandler) }

// discard is a ResponseWriter that costs nothing.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// BenchmarkRefresh is a refresh without the network; less what
// BenchmarkRefreshInProcess costs it is what the handler adds.
func BenchmarkRefresh(b *testing.B) {
	s := newSite(b, quiet)
	grant, err := s.auth.StartSession(b.Context(), counterfoil.SignIn{Subject: "u1"})
	if err != nil {
		b.Fatal(err)
	}
	token := grant.SessionToken.Reveal()
	b.ReportAllocs()
	for b.Loop() {
		r, _ := http.NewRequest("POST", "/v1/auth/refresh", strings.NewReader(`{"active":true}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Cookie", cookie+"="+token)
		w := &discard{header: make(http.Header)}
		if s.handler.ServeHTTP(w, r); w.status != 200 {
			b.Fatal(w.status)
		}
	}
}

func BenchmarkRefreshInProcess(b *testing.B) {
	s := newSite(b, quiet)
	grant, err := s.auth.StartSession(b.Context(), counterfoil.SignIn{Subject: "u1"})
	if err != nil {
		b.Fatal(err)
	}
	token := grant.SessionToken.Reveal()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.auth.Refresh(b.Context(), token, counterfoil.RefreshRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}
