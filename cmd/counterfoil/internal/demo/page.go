package demo

import (
	"bytes"
	"embed"
	"html/template"
	"io/fs"
	"net/http"

	"github.com/counterfoil/counterfoil/internal/guard"
	"github.com/counterfoil/counterfoil/internal/look"
)

//go:embed assets
var files embed.FS

var pageTemplate = template.Must(template.ParseFS(files, "assets/page.html"))

// User is the user who is there from the start.
type User struct {
	Email      string
	Passphrase string
}

// Ada is the user who is there from the start.
var Ada = User{"ada@example.com", "paper boats on a green river"}

// Step is a thing to try, in the terminal and on the page.
type Step struct {
	Name string // what the page calls it
	Text string
}

// Steps are what to try, in order.
var Steps = []Step{
	{"sign-in", "Sign in: a session and an access token."},
	{"call", "List the orders: nobody is asked."},
	{"pay", "Pay: this route asks the authority first."},
	{"others", "Open a second device, sign out the others: orders hears of it in milliseconds."},
	{"role", "Give the role admin, and open the report."},
	{"feed", "Cut the feed, see it age, and ask for the balance. Restore it."},
	{"authority", "Stop the authority, list the orders, start it again."},
}

// policy lets the page use its own files and call its own server, and nothing
// else. Script cannot make markup from text (Trusted Types).
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

func secure(h http.Header) { guard.Headers(h, policy) }

// pages serves the page and its files.
func (f *Front) pages(mux *http.ServeMux) error {
	var page bytes.Buffer
	if err := pageTemplate.Execute(&page, map[string]any{"Issuer": f.Issuer, "User": Ada, "Steps": Steps}); err != nil {
		return err
	}
	assets, err := fs.Sub(files, "assets")
	if err != nil {
		return err
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		secure(w.Header())
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		// A write fails when the client has gone; there is nobody left to tell.
		_, _ = w.Write(page.Bytes())
	})
	own, shared := http.FileServerFS(assets), http.FileServerFS(look.Files)
	serve := func(pattern string, files http.Handler) {
		files = http.StripPrefix("/assets/", files)
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			secure(w.Header())
			files.ServeHTTP(w, r)
		})
	}
	serve("GET /assets/{name}", own)
	serve("GET /assets/counterfoil.css", shared)
	serve("GET /assets/mark.svg", shared)
	return nil
}
