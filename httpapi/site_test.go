package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/storetest/engine"
)

const (
	issuer   = "https://app.example"
	friend   = "https://friend.example"
	secret64 = "c2VhbC1zZWFsLXNlYWwtc2VhbC1zZWFsLXNlYWwtc2U="
	goodWord = "turbine ladder quietly orchid"
	newWord  = "basalt umbrella seven drifting"
	cookie   = "__Host-counterfoil"
)

// site is a whole authority behind the handler of the binary, on the store and
// the number of nodes that the run is about. Each request goes to another node
// than the one before, once that knows what the others did; auth and users are
// the first's. Every answer that goes through it is held against the document,
// and looked through for secrets in places where none belong.
type site struct {
	testing.TB
	auth    *counterfoil.Authority
	users   *directory.Directory
	db      *engine.Database
	store   engine.Store // the first node's
	nodes   []*counterfoil.Authority
	handler http.Handler
	first   http.Handler
	doc     *document
	key     string // of the application "default", all scopes
	logs    *lockedBuffer
	ahead   atomic.Int64 // how far the clock is ahead, in nanoseconds
	still   atomic.Pointer[time.Time]
	ip      string
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func newSite(t testing.TB, change ...func(*counterfoil.Config)) *site {
	t.Helper()
	s := &site{TB: t, logs: &lockedBuffer{}, ip: "192.0.2.7:4711"}
	s.db = engine.Open(t, s.now)
	log := slog.New(slog.NewTextHandler(s.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	config := counterfoil.Config{
		Issuer: issuer, Audiences: []string{"app", "orders"}, Seal: counterfoil.SealText(secret64),
		MoreClientIDs: []string{"admin"}, Clock: s.now, Logger: log,
	}
	for _, c := range change {
		c(&config)
	}
	var handlers []http.Handler
	for range engine.Nodes() {
		handlers = append(handlers, s.node(config))
	}
	s.first, s.handler = handlers[0], engine.Front(s.settle, handlers...)
	if _, fuzz := t.(*testing.F); fuzz {
		s.oneNode() // what a settling front does with t is not for a fuzz target
	}
	s.doc = readDocument(t, s.handler)
	s.key = s.apiKey(counterfoil.NewAPIKey{Name: "tests"})
	t.Cleanup(func() {
		if found := secretsIn(s.logs.String()); len(found) > 0 {
			t.Errorf("SEC-123: the log holds %q", found)
		}
	})
	return s
}

// node is one more authority with its directory, and its handler.
func (s *site) node(config counterfoil.Config) http.Handler {
	s.Helper()
	store := s.db.Store(s)
	auth, err := counterfoil.New(context.Background(), store, config)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { auth.Close() })
	loose := directory.Limit{Free: 1 << 20, Slowest: time.Minute}
	users, err := directory.New(auth, store.Users(), directory.Config{
		Hash: directory.Argon2id{Memory: 19 << 10, Time: 2, Parallelism: 1}, Logger: config.Logger,
		Throttle: directory.Throttle{Network: loose, Range: loose, SignUp: loose},
	})
	if err != nil {
		s.Fatal(err)
	}
	if s.auth == nil {
		s.store, s.auth, s.users = store, auth, users
	}
	s.nodes = append(s.nodes, auth)
	return httpapi.Handler(auth, httpapi.WithDirectory(users), httpapi.WithOrigins(friend, "http://localhost:3000"))
}

// oneNode sends every request from now on to the first node, for what a test
// wants to know of one process.
func (s *site) oneNode() { s.settle(); s.handler, s.nodes = s.first, s.nodes[:1] }

// settle waits until each node knows what the others did.
func (s *site) settle() { engine.Settle(s, s.store, s.nodes...) }

func (s *site) now() time.Time {
	at := time.Now()
	if still := s.still.Load(); still != nil {
		at = *still
	}
	return at.Add(time.Duration(s.ahead.Load()))
}

// freeze lets time pass by forward only, for tests that look at the second.
func (s *site) freeze() {
	at := time.Now().Truncate(time.Second)
	s.still.Store(&at)
}

func (s *site) forward(d time.Duration) { s.ahead.Add(int64(d)) }

func (s *site) apiKey(spec counterfoil.NewAPIKey) string {
	s.Helper()
	secret, _, err := s.auth.CreateAPIKey(context.Background(), spec)
	if err != nil {
		s.Fatal(err)
	}
	return secret.Reveal()
}

// ask is a request to be made.
type ask struct {
	method, path string
	body         string
	header       []string // name, value, name, value
	cookies      []string // "name=value"
	bearer       string
	any          bool // the answer may be undocumented: the request never reaches a route
}

type answer struct {
	*httptest.ResponseRecorder
	json map[string]any
}

func (s *site) do(a ask) *answer {
	s.Helper()
	method, path, _ := strings.Cut(a.method, " ")
	if a.path == "" {
		a.path = path
	}
	r := httptest.NewRequest(method, "https://app.example"+a.path, strings.NewReader(a.body))
	r.RemoteAddr = s.ip
	if a.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, c := range a.cookies {
		r.Header.Add("Cookie", c)
	}
	if a.bearer != "" {
		r.Header.Set("Authorization", "Bearer "+a.bearer)
	}
	for i := 0; i < len(a.header); i += 2 {
		if a.header[i] == "Host" {
			r.Host = a.header[i+1]
			continue
		}
		if a.header[i+1] == "" {
			r.Header.Del(a.header[i])
			continue
		}
		r.Header.Add(a.header[i], a.header[i+1])
	}
	return s.serve(r, a.any)
}

func (s *site) serve(r *http.Request, undocumented bool) *answer {
	s.Helper()
	w := &answer{ResponseRecorder: httptest.NewRecorder()}
	ctx, gone := context.WithCancel(r.Context())
	defer gone()
	s.handler.ServeHTTP(&untilFlushed{w.ResponseRecorder, gone}, r.WithContext(ctx))
	body := w.Body.Bytes()
	if len(body) > 0 && w.Header().Get("Content-Type") != "text/event-stream" {
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.UseNumber()
		if err := decoder.Decode(&w.json); err != nil {
			s.Fatalf("%s %s: the answer is not JSON: %v\n%s", r.Method, r.URL.Path, err, body)
		}
		if err := decoder.Decode(new(any)); err != io.EOF {
			s.Errorf("%s %s: the answer goes on after its end", r.Method, r.URL.Path)
		}
	}
	if !undocumented {
		if err := s.doc.check(r.Method, r.URL.EscapedPath(), w); err != nil {
			s.Errorf("%s %s -> %d %s\nagainst the document: %v", r.Method, r.URL.Path, w.Code, body, err)
		}
	}
	s.checkSecrets(r, w)
	checkHeaders(s, r, w)
	return w
}

// untilFlushed is a client that goes when it has the beginning of a stream.
type untilFlushed struct {
	*httptest.ResponseRecorder
	gone func()
}

func (u *untilFlushed) FlushError() error {
	u.gone()
	return nil
}

// intended are the members that carry a secret on purpose (SEC-06).
var intended = []string{"session_token", "set_cookie", "token"}

func (s *site) checkSecrets(r *http.Request, w *answer) {
	s.Helper()
	rest := make(map[string]any)
	for name, value := range w.json {
		if !slices.Contains(intended, name) || w.Code >= 300 {
			rest[name] = value
		}
	}
	text, _ := json.Marshal(rest)
	for name, values := range w.Header() {
		if name != "Set-Cookie" {
			text = append(text, strings.Join(values, " ")...)
		}
	}
	if found := secretsIn(string(text)); len(found) > 0 {
		s.Errorf("SEC-06: %s %s answers with %q", r.Method, r.URL.Path, found)
	}
}

// secretsIn finds what looks like one of our secrets, redacted ones aside.
func secretsIn(text string) (found []string) {
	for _, prefix := range []string{"cf_st_", "cf_sk_", "cf_pr_", "cf_ce_", "cf_bd_"} {
		for rest := text; ; {
			i := strings.Index(rest, prefix)
			if i < 0 {
				break
			}
			rest = rest[i:]
			if !strings.HasPrefix(rest, prefix+"[redacted]") && !strings.HasPrefix(rest, prefix+"…") {
				found = append(found, rest[:min(len(rest), 20)])
			}
			rest = rest[len(prefix):]
		}
	}
	return found
}

// wants checks status and fragments of the body; fragments that begin with ! must not be there.
func (s *site) wants(a *answer, status int, fragments ...string) *answer {
	s.Helper()
	body := a.Body.String()
	if a.Code != status {
		s.Errorf("status %d, want %d\n%s", a.Code, status, body)
	}
	for _, f := range fragments {
		if not, ok := strings.CutPrefix(f, "!"); ok == strings.Contains(body, not) && (ok || !strings.Contains(body, f)) {
			s.Errorf("fragment %s in\n%s", f, body)
		}
	}
	return a
}

func (a *answer) text(name string) string {
	text, _ := a.json[name].(string)
	return text
}

func (a *answer) object(name string) map[string]any {
	object, _ := a.json[name].(map[string]any)
	return object
}

func (a *answer) sid() string {
	sid, _ := a.object("session")["sid"].(string)
	return sid
}

// setCookie returns the one cookie that the answer sets, or nil.
func (a *answer) setCookie(t testing.TB) *http.Cookie {
	t.Helper()
	cookies := a.Result().Cookies()
	if len(cookies) > 1 {
		t.Errorf("%d cookies set, want one", len(cookies))
	}
	if len(cookies) == 0 {
		return nil
	}
	return cookies[0]
}

func credentials(email string) string {
	return `{"email":"` + email + `","password":"` + goodWord + `"}`
}

// signUp makes a user and returns the answer; its session token is in the body.
func (s *site) signUp(email string) *answer {
	s.Helper()
	return s.wants(s.do(ask{method: "POST /v1/auth/sign-up", body: strings.Replace(credentials(email), "}", `,"transport":"body"}`, 1)}), 201)
}

// another gives the user of an earlier answer one more session, as on another
// device, without the cost of a password hash.
func (s *site) another(user *answer) *answer {
	s.Helper()
	return s.wants(s.do(ask{method: "POST /v1/sessions", bearer: s.key, body: `{"subject":"` + user.subject() + `"}`}), 201)
}

func (a *answer) subject() string {
	subject, _ := a.object("session")["subject"].(string)
	return subject
}
