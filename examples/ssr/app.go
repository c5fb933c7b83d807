package main

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/pages"
	"github.com/counterfoil/counterfoil/verify"
)

//go:embed pages.html
var pagesHTML string

//go:embed style.css
var style []byte

var templates = template.Must(template.New("").Parse(pagesHTML))

const librarian = "desk@library.example"

// store is what sqlstore and memstore are.
type store interface {
	counterfoil.Store
	Users() directory.Store
}

type app struct {
	auth    *counterfoil.Authority
	users   *directory.Directory
	library *library
}

func newApp(ctx context.Context, s store, config counterfoil.Config) (*app, error) {
	config.Audiences = []string{"library"}
	config.SignedOut = pages.SignedOut("/account") // who is not signed in does so, and comes back
	config.StepUp = pages.StepUp("/account")       // who has to confirm does so, and the request is repeated
	auth, err := counterfoil.New(ctx, s, config)
	if err != nil {
		return nil, err
	}
	users, err := directory.New(auth, s.Users(), directory.Config{RelyingParty: directory.RelyingParty{Name: "Harbour Library"}})
	if err != nil {
		return nil, errors.Join(err, auth.Close())
	}
	return &app{auth, users, newLibrary()}, nil
}

func (a *app) routes() http.Handler {
	reader := a.auth.Browser() // cookie in, a fresh access token behind it
	desk := a.auth.Browser(verify.Role("librarian"), verify.MaxTokenAge(30*time.Second))
	confirmed := a.auth.Browser(verify.MaxAuthAge(10 * time.Minute))

	mux := http.NewServeMux()
	mux.Handle("GET /{$}", reader(a.page(a.home)))
	mux.Handle("POST /borrow", reader(a.page(a.borrow)))
	mux.Handle("POST /return", reader(a.page(a.giveBack)))
	mux.Handle("GET /desk", desk(a.page(a.desk)))            // a role that was taken away half a minute ago opens nothing
	mux.Handle("POST /address", confirmed(a.page(a.moveTo))) // whoever finds an open laptop sends no books elsewhere
	mux.Handle("/account/", http.StripPrefix("/account", pages.Handler(a.auth, a.users, pages.WithName("Harbour Library"), pages.WithNext("/"))))
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		_, _ = w.Write(style) // an error is the reader's connection
	})
	return headers(http.MaxBytesHandler(mux, 64<<10))
}

// addLibrarian makes the first user, and returns the password once.
// "counterfoil user create" does this for users of the binary.
func (a *app) addLibrarian(ctx context.Context) (password string, err error) {
	password = rand.Text()
	_, err = a.users.Create(ctx, directory.NewUser{Email: librarian, Password: password, Rights: counterfoil.Rights{Roles: []string{"librarian"}}})
	if errors.Is(err, directory.ErrEmailTaken) {
		return "", nil // of an earlier start
	}
	return password, err
}

// page makes a handler of one that may fail.
func (a *app) page(serve func(http.ResponseWriter, *http.Request, *verify.Claims) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := verify.FromContext(r.Context()) // there, since Browser let the request through
		if err := serve(w, r, claims); err != nil {
			slog.Error("request failed", "path", r.URL.Path, "error", err)
			http.Error(w, "Something went wrong here. Try again in a moment.", http.StatusServiceUnavailable)
		}
	})
}

func (a *app) show(w http.ResponseWriter, name string, data any) error {
	var page bytes.Buffer
	if err := templates.ExecuteTemplate(&page, name, data); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "private, no-store")
	_, _ = w.Write(page.Bytes()) // an error is the reader's connection
	return nil
}

// headers are what every page with an account behind it should have. Package
// pages sets its own.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}
