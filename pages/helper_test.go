package pages_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/pages"
	"github.com/counterfoil/counterfoil/storetest/engine"
	"github.com/counterfoil/counterfoil/verify"
)

const (
	issuer  = "https://app.example"
	ada     = "ada@example.com"
	word    = "turbine ladder quietly orchid"
	newWord = "basalt umbrella seven drifting"
	cookie  = "__Host-counterfoil"
)

// app is an application with the pages under /account/, behind TLS since the
// cookies are Secure, on the store and the number of nodes that the run is
// about. Each request goes to another node than the one before; auth and users
// are the first's.
type app struct {
	*testing.T
	*httptest.Server
	auth  *counterfoil.Authority
	nodes []*counterfoil.Authority
	users *directory.Directory
	start time.Time
	ahead atomic.Int64 // how far the clock is ahead of that, in nanoseconds: it stands still until it is moved
	logs  *logs
	paid  atomic.Pointer[[]string] // what POST /pay was last sent
}

type logs struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.String()
}

func (a *app) now() time.Time        { return a.start.Add(time.Duration(a.ahead.Load())) }
func (a *app) later(d time.Duration) { a.ahead.Add(int64(d)) }
func (a *app) must(err error)        { a.Helper(); noError(a.T, err) }
func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
func form(pairs ...string) (out url.Values) {
	out = url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		out.Add(pairs[i], pairs[i+1])
	}
	return out
}

func setup(t *testing.T, opts ...pages.Option) *app { return setupAt(t, "/account", nil, opts...) }

func setupAt(t *testing.T, prefix string, change func(*counterfoil.Config), opts ...pages.Option) *app {
	t.Helper()
	a := &app{T: t, logs: &logs{}, start: time.Now()}
	cfg := counterfoil.Config{
		Issuer: issuer, Audiences: []string{"app"}, Seal: counterfoil.SealSecrets(bytes.Repeat([]byte{1}, 32)),
		Clock: a.now, Logger: slog.New(slog.NewTextHandler(a.logs, nil)),
		SignedOut: pages.SignedOut(prefix), StepUp: pages.StepUp(prefix),
	}
	if change != nil {
		change(&cfg)
	}
	db := engine.Open(t, a.now)
	var store engine.Store
	var handlers []http.Handler
	for range engine.Nodes() {
		store = db.Store(t)
		auth, err := counterfoil.New(t.Context(), store, cfg)
		a.must(err)
		t.Cleanup(func() { noError(t, auth.Close()) })
		users, err := directory.New(auth, store.Users(), directory.Config{
			Hash: directory.Argon2id{Memory: 19 << 10, Time: 2, Parallelism: 1}, Logger: cfg.Logger,
		})
		a.must(err)
		if a.nodes = append(a.nodes, auth); len(a.nodes) == 1 {
			a.auth, a.users = auth, users
		}
		handlers = append(handlers, a.node(auth, pages.Handler(auth, users, opts...), prefix))
	}
	a.Server = httptest.NewTLSServer(engine.Front(func() { engine.Settle(t, store, a.nodes...) }, handlers...))
	t.Cleanup(a.Close)
	t.Cleanup(func() {
		if text := a.logs.String(); secret.MatchString(text) || strings.Contains(text, word) {
			t.Errorf("a secret is in the logs:\n%s", text)
		}
	})
	return a
}

// node is the application on one node.
func (a *app) node(auth *counterfoil.Authority, account http.Handler, prefix string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(prefix+"/", http.StripPrefix(prefix, account))
	fresh := verify.MaxAuthAge(10 * time.Minute)
	mux.Handle("GET /orders", auth.Browser()(http.HandlerFunc(a.orders)))
	mux.Handle("GET /vault", auth.Browser(fresh)(http.HandlerFunc(a.orders)))
	mux.Handle("POST /pay", auth.Browser(fresh)(http.HandlerFunc(a.pay)))
	return mux
}

func (a *app) orders(w http.ResponseWriter, r *http.Request) {
	claims, _ := verify.FromContext(r.Context())
	fmt.Fprintf(w, "orders of %s at %s", claims.Subject, r.URL.RequestURI())
}

func (a *app) pay(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.paid.Store(&[]string{r.URL.RequestURI(), string(body)})
	fmt.Fprint(w, "paid")
}

// browser is one with its own cookies.
type browser struct {
	*app
	agent  string
	client *http.Client
}

const firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0"

func (a *app) browser(agent string) *browser {
	jar, err := cookiejar.New(nil)
	a.must(err)
	if agent == "" {
		agent = firefox
	}
	return &browser{a, agent, &http.Client{Transport: a.Client().Transport, Jar: jar}}
}

// signedUp is a browser of a new user.
func (a *app) signedUp(email string) *browser {
	a.Helper()
	b := a.browser("")
	b.post("/account/sign-up", form("email", email, "password", word)).is(200, "Your devices")
	return b
}

// signedIn is one more device of a user.
func (a *app) signedIn(email, agent string) *browser {
	a.Helper()
	b := a.browser(agent)
	b.post("/account/sign-in", form("email", email, "password", word)).is(200, "Your devices")
	return b
}

func (b *browser) cookie(name string) *http.Cookie {
	u, err := url.Parse(b.URL)
	b.must(err)
	for _, c := range b.client.Jar.Cookies(u) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func (b *browser) session() counterfoil.Session {
	b.Helper()
	c := b.cookie(cookie)
	if c == nil {
		b.Fatal("the browser has no session cookie")
	}
	s, err := b.auth.Authenticate(b.Context(), c.Value)
	b.must(err)
	return s
}

// page is an answer.
type page struct {
	*browser
	at     string // where redirects led, without the host
	status int
	header http.Header
	text   string
	root   *html.Node
}

// secret finds what no page and no log may show (SEC-06).
var secret = regexp.MustCompile(`cf_(st|pr|at|sk|bd)_[0-9A-Za-z]{20}|eyJ[\w-]{10,}`)

func (b *browser) do(method, target, body string, headers ...string) *page {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), method, b.URL+target, strings.NewReader(body))
	b.must(err)
	r.Header.Set("User-Agent", b.agent)
	r.Header.Set("Accept", "text/html,application/xhtml+xml")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := b.client.Do(r)
	b.must(err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	b.must(err)
	p := &page{b, res.Request.URL.RequestURI(), res.StatusCode, res.Header, string(text), nil}
	if secret.MatchString(p.text) {
		b.Errorf("SEC-06: a secret is in the page %s:\n%s", p.at, p.text)
	}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
		p.root, err = html.Parse(bytes.NewReader(text))
		b.must(err)
	}
	return p
}

func (b *browser) get(target string, headers ...string) *page {
	b.Helper()
	return b.do(http.MethodGet, target, "", headers...)
}

func (b *browser) post(target string, values url.Values, headers ...string) *page {
	b.Helper()
	return b.do(http.MethodPost, target, values.Encode(), headers...)
}

// still asks without following redirects.
func (b *browser) still() *browser {
	client := *b.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &browser{b.app, b.agent, &client}
}

// is insists on the status and on pieces of the text.
func (p *page) is(status int, pieces ...string) *page {
	p.Helper()
	if p.status != status {
		p.Fatalf("%s: status %d, want %d\n%s", p.at, p.status, status, p.text)
	}
	words := p.words()
	for _, piece := range pieces {
		if !strings.Contains(words, piece) {
			p.Fatalf("%s: %q is not on the page:\n%s", p.at, piece, words)
		}
	}
	return p
}

func (p *page) isNot(pieces ...string) *page {
	p.Helper()
	for _, piece := range pieces {
		if strings.Contains(p.words(), piece) {
			p.Fatalf("%s: %q is on the page:\n%s", p.at, piece, p.words())
		}
	}
	return p
}

// words are what is to be read, spaces folded.
func (p *page) words() string {
	if p.root == nil {
		return p.text
	}
	var b strings.Builder
	for n := range p.root.Descendants() {
		if n.Type == html.TextNode {
			b.WriteString(n.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func attr(n *html.Node, name string) (value string, ok bool) {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}

// forms are the forms of the page with this action: their fields, in order.
func (p *page) forms(action string) (list []url.Values) {
	p.Helper()
	for n := range p.root.Descendants() {
		if at, _ := attr(n, "action"); n.Data != "form" || at != action {
			continue
		}
		fields := url.Values{}
		for in := range n.Descendants() {
			if name, ok := attr(in, "name"); ok && in.Data == "input" {
				value, _ := attr(in, "value")
				fields.Add(name, value)
			}
		}
		list = append(list, fields)
	}
	if len(list) == 0 {
		p.Fatalf("%s has no form for %s:\n%s", p.at, action, p.text)
	}
	return list
}

// submit sends the last form with this action, with more filled in.
func (p *page) submit(action string, pairs ...string) *page {
	p.Helper()
	list := p.forms(action)
	fields := list[len(list)-1]
	for i := 0; i < len(pairs); i += 2 {
		fields.Set(pairs[i], pairs[i+1])
	}
	base, err := url.Parse(p.at)
	p.must(err)
	to, err := base.Parse(action)
	p.must(err)
	return p.post(to.RequestURI(), fields)
}

// options asks for a ceremony as the script does.
func (b *browser) options(pairs ...string) (json.RawMessage, *page) {
	b.Helper()
	p := b.post("/account/passkey-options", form(pairs...), "Sec-Fetch-Mode", "cors", "Accept", "*/*")
	var body struct{ PublicKey json.RawMessage }
	b.must(json.Unmarshal([]byte(p.text), &body))
	return body.PublicKey, p
}

func newUser(email string) directory.NewUser { return directory.NewUser{Email: email, Password: word} }
