package main

import (
	"bytes"
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/sqlstore"
	"github.com/counterfoil/counterfoil/verify"
)

//go:embed pages.html
var pagesHTML string

var pages = template.Must(template.New("").Parse(pagesHTML))

type app struct {
	db   *sql.DB
	auth *counterfoil.Authority
}

func newApp(ctx context.Context, db *sql.DB, issuer string, seal counterfoil.Seal) (*app, error) {
	if err := createUsers(ctx, db); err != nil {
		return nil, err
	}
	a := &app{db: db}
	// README:start
	auth, err := counterfoil.New(ctx, sqlstore.SQLite(db), counterfoil.Config{
		Issuer: issuer, Audiences: []string{"app"}, Seal: seal, // seals the signing keys at rest
		Claims:    a.claims,     // the roles of your users, asked at each mint
		SignedOut: a.showSignIn, // the page for those without a session
	})
	// README:end
	a.auth = auth
	return a, err
}

func (a *app) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sign-in", func(w http.ResponseWriter, r *http.Request) { a.showSignIn(w, r, nil) })
	mux.Handle("POST /sign-in", a.page(a.signIn))
	mux.Handle("POST /sign-up", a.page(a.signUp))

	// README:start
	user := a.auth.Browser() // cookie in, a fresh access token behind it, no JavaScript
	admin := a.auth.Browser(verify.Role("admin"), verify.MaxTokenAge(30*time.Second))
	mux.Handle("GET /{$}", user(a.page(a.account)))
	mux.Handle("GET /admin", admin(a.page(a.admin)))
	// README:end
	mux.Handle("POST /admin/role", admin(a.page(a.changeRole)))
	mux.Handle("POST /password", user(a.page(a.changePassword)))
	mux.Handle("POST /devices/end", user(a.page(a.endDevice)))
	mux.Handle("POST /sign-out", user(a.page(a.signOut)))

	// Browser refuses what other sites send with the user's cookie. A sign-in
	// has no cookie yet, so all of it is protected here.
	return headers(http.NewCrossOriginProtection().Handler(http.MaxBytesHandler(mux, 16<<10)))
}

// page makes a handler of one that may fail.
func (a *app) page(serve func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := serve(w, r)
		if ended := (*counterfoil.EndedError)(nil); errors.As(err, &ended) {
			a.showSignIn(w, r, err) // it ended while this request was under way
		} else if err != nil {
			slog.Error("request failed", "path", r.URL.Path, "error", err)
			http.Error(w, "Something went wrong here. Try again in a moment.", http.StatusServiceUnavailable)
		}
	})
}

// headers are what every page with an account behind it should have.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "same-origin")
		w.Header().Set("Cache-Control", "private, no-store")
		next.ServeHTTP(w, r)
	})
}

func (a *app) show(w http.ResponseWriter, status int, name string, data any) error {
	var page bytes.Buffer
	if err := pages.ExecuteTemplate(&page, name, data); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(page.Bytes())
	return nil
}
