package main

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/memstore"
)

const (
	ada  = "ada@example.com"
	word = "paper boats on a green river"
)

// site is the library in memory, on a clock that can be moved.
type site struct {
	*app
	ahead atomic.Int64
	desk  string // the librarian's password
}

func (s *site) now() time.Time        { return time.Now().Add(time.Duration(s.ahead.Load())) }
func (s *site) later(d time.Duration) { s.ahead.Add(int64(d)) }

func newSite(t *testing.T, issuer string) *site {
	t.Helper()
	s := &site{}
	var err error
	s.app, err = newApp(t.Context(), memstore.New(memstore.Clock(s.now)), counterfoil.Config{
		Issuer: issuer, Seal: counterfoil.SealSecrets(bytes.Repeat([]byte{1}, 32)), Clock: s.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.auth.Close() })
	if s.desk, err = s.addLibrarian(t.Context()); err != nil || s.desk == "" {
		t.Fatalf("the librarian: %q, %v", s.desk, err)
	}
	if again, err := s.addLibrarian(t.Context()); err != nil || again != "" {
		t.Fatalf("the second start: %q, %v", again, err)
	}
	return s
}

// reader is a browser with its own cookies and no JavaScript.
type reader struct {
	t      *testing.T
	url    string
	client http.Client
}

func newReader(t *testing.T, server *httptest.Server) *reader {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &reader{t, server.URL, http.Client{Transport: server.Client().Transport, Jar: jar}}
}

// visit asks, insists on where redirects led to and on a piece of the page,
// and returns the page.
func (r *reader) visit(ends, piece, method, path string, form ...string) string {
	r.t.Helper()
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(values.Encode()))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if got := res.Request.URL.Path; got != ends || !strings.Contains(string(page), piece) {
		r.t.Fatalf("%s %s: %d at %s, want %s and %q in\n%s", method, path, res.StatusCode, got, ends, piece, page)
	}
	return string(page)
}

var hiddenField = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)"`)

// hidden are the fields that a form brings along, as pairs.
func hidden(page string) (form []string) {
	for _, m := range hiddenField.FindAllStringSubmatch(page, -1) {
		form = append(form, m[1], html.UnescapeString(m[2]))
	}
	return form
}

func TestLibrary(t *testing.T) {
	s := newSite(t, "https://library.example")
	server := httptest.NewTLSServer(s.routes())
	defer server.Close()
	laptop, phone, desk := newReader(t, server), newReader(t, server), newReader(t, server)

	// Who is not signed in does so, and comes where the way had led.
	laptop.visit("/account/sign-in", "Sign in", "GET", "/")
	laptop.visit("/", "You have no book", "POST", "/account/sign-up", "email", ada, "password", word, "next", "/")
	laptop.visit("/", "Give back Two Years", "POST", "/borrow", "book", "Two Years Before the Mast")
	laptop.visit("/", "You have no book", "POST", "/return", "book", "Two Years Before the Mast")
	laptop.visit("/", "Give back The Log", "POST", "/borrow", "book", "The Log from the Sea of Cortez")
	laptop.visit("/", "Give back The Log", "POST", "/return", "book", "no such book")

	// The desk is for librarians; a role that changes holds from the next click on.
	laptop.visit("/desk", "insufficient_scope", "GET", "/desk")
	desk.visit("/", "The desk", "POST", "/account/sign-in", "email", librarian, "password", s.desk, "next", "/")
	desk.visit("/desk", ada, "GET", "/desk")
	desk.visit("/", "On the shelf", "POST", "/borrow", "book", "The Log from the Sea of Cortez") // lent already
	desk.visit("/desk", ada, "GET", "/desk")
	s.later(31 * time.Second) // the token is too old for the desk, and another one comes by itself
	desk.visit("/desk", ada, "GET", "/desk")
	user, err := s.users.ByEmail(t.Context(), librarian)
	if err == nil {
		_, err = s.users.Update(t.Context(), user.ID, directory.Change{Roles: &[]string{}})
	}
	if err != nil {
		t.Fatal(err)
	}
	desk.visit("/desk", "insufficient_scope", "GET", "/desk")
	desk.visit("/", "My books", "GET", "/")

	// The address: at once after a sign-in; later, after a confirmation, with what was typed.
	laptop.visit("/", `value="Quay 1"`, "POST", "/address", "address", "Quay 1")
	s.later(11 * time.Minute)
	page := laptop.visit("/account/step-up", "Confirm that it is you", "POST", "/address", "address", "Quay 2 & a half")
	laptop.visit("/", `value="Quay 1"`, "GET", "/")
	page = laptop.visit("/account/step-up", "goes on now", "POST", "/account/step-up", append(hidden(page), "password", word)...)
	laptop.visit("/", `value="Quay 2 &amp; a half"`, "POST", "/address", hidden(page)...)

	// Ended on another device: said why, and led back.
	phone.visit("/", "The Log", "POST", "/account/sign-in", "email", ada, "password", word, "next", "/")
	phone.visit("/account/devices", "No other device", "POST", "/account/end-others")
	laptop.visit("/account/signed-out", "from another of your devices", "GET", "/")
	phone.visit("/", "The Log", "GET", "/")
	phone.visit("/account/signed-out", "not signed in any more", "POST", "/account/sign-out")
	phone.visit("/account/sign-in", "Sign in", "GET", "/")
}

// Another site cannot have a reader borrow anything.
func TestOtherSitesAreRefused(t *testing.T) {
	s := newSite(t, "https://library.example")
	for _, path := range []string{"/borrow", "/return", "/address"} {
		r := httptest.NewRequest("POST", path, nil)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		w := httptest.NewRecorder()
		s.routes().ServeHTTP(w, r)
		if w.Code != http.StatusForbidden {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// The same once in a browser. With COUNTERFOIL_TEST_SCREENSHOTS it leaves
// pictures in that folder.
func TestStory(t *testing.T) {
	for _, name := range []string{"COUNTERFOIL_TEST_CHROMIUM", "COUNTERFOIL_TEST_NODE_MODULES"} {
		if os.Getenv(name) != "" {
			continue
		}
		if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
			t.Fatalf("%s is not set", name)
		}
		t.Skipf("%s is not set: run make test", name)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	home := fmt.Sprintf("http://localhost:%d", listener.Addr().(*net.TCPAddr).Port)
	s := newSite(t, home)
	mux := http.NewServeMux()
	mux.Handle("/", s.routes())
	mux.HandleFunc("POST /test/later", func(_ http.ResponseWriter, r *http.Request) {
		minutes, _ := strconv.Atoi(r.URL.Query().Get("minutes"))
		s.later(time.Duration(minutes) * time.Minute)
	})
	server := httpapi.Server(mux)
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	script, err := filepath.Abs(filepath.Join("..", "..", "test", "node", "examples", "ssr.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "node", script, home, librarian, s.desk).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("the story: %v", err)
	}
}
