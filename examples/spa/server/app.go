package main

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/memstore"
	"github.com/counterfoil/counterfoil/verify"
)

type app struct {
	auth  *counterfoil.Authority
	users *directory.Directory
}

// newApp keeps everything in memory, and forgets it when the program ends:
// sqlstore.SQLite(db) in the place of memstore.New() keeps it.
func newApp(ctx context.Context, public string, clock func() time.Time) (*app, error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	store := memstore.New(memstore.Clock(clock))
	auth, err := counterfoil.New(ctx, store, counterfoil.Config{
		Issuer: public, Audiences: []string{"cloakroom"}, Seal: counterfoil.SealSecrets(key), Clock: clock,
		// Vite's dev server is on this machine: it says whom it speaks for.
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	})
	if err != nil {
		return nil, err
	}
	users, err := directory.New(auth, store.Users(), directory.Config{RelyingParty: directory.RelyingParty{Name: "Cloakroom"}})
	return &app{auth, users}, err
}

func (a *app) routes(built string) http.Handler {
	v, err := a.auth.Verifier("cloakroom")
	if err != nil {
		panic(err) // it is in Audiences
	}
	room := newCloakroom()
	user := v.Require()                                 // local: no I/O
	confirmed := v.Require(verify.MaxAuthAge(minutes5)) // who proved a moment ago who they are

	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", httpapi.Device(a.auth, httpapi.WithDirectory(a.users))))
	mux.Handle("GET /api/things", user(http.HandlerFunc(room.list)))
	mux.Handle("POST /api/things", user(http.HandlerFunc(room.leave)))
	mux.Handle("DELETE /api/things", confirmed(http.HandlerFunc(room.collect)))
	if built != "" {
		mux.Handle("/", headers(http.FileServerFS(os.DirFS(built))))
	}
	return mux
}

const minutes5 = 5 * time.Minute

// headers are what a page with scripts should have: nothing inline, nothing
// from elsewhere, no markup out of text.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
			"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}
