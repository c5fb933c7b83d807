package sdk_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// The browser SDK in a real Chromium, against real authorities in this process:
// browser/chromium holds the cases. COUNTERFOIL_CASES, a regular expression,
// chooses some of them.
func TestBrowserInChromium(t *testing.T) {
	const chromium = "COUNTERFOIL_TEST_CHROMIUM"
	if os.Getenv(chromium) == "" {
		if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
			t.Fatalf("%s is not set", chromium)
		}
		t.Skipf("%s is not set: run make test", chromium)
	}
	t.Parallel()
	town := newTown(t, filepath.Join(builtBrowser(t), "dist"))
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", filepath.Join("browser", "chromium", "run.mjs"), town.control.URL, town.key())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%v\n%s", err, &stderr)
	}
	results := 0
	for lines := json.NewDecoder(bytes.NewReader(out)); lines.More(); results++ {
		var result struct {
			Name, Error string
			Seconds     float64
		}
		if err := lines.Decode(&result); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		t.Run(result.Name, func(t *testing.T) {
			t.Logf("%.1f s", result.Seconds)
			if result.Error != "" {
				t.Error(result.Error)
			}
		})
	}
	if results == 0 {
		t.Errorf("no case ran\n%s", &stderr)
	}
}

// town is where the sites of the cases stand: each case has one of its own,
// with its own authority, users, clock and faults. The cases drive it over
// HTTP, from outside of the browser.
type town struct {
	testing.TB
	dist    string // of the SDK
	control *httptest.Server
	mu      sync.Mutex
	sites   []*shop
}

func newTown(t *testing.T, dist string) *town {
	c := &town{TB: t, dist: dist}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sites", func(w http.ResponseWriter, r *http.Request) {
		var in siteRequest
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s, err := newShop(c, in)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.sites = append(c.sites, s)
		reply(w, map[string]any{"id": len(c.sites) - 1, "url": s.url, "plain": s.plain, "key": s.key})
	})
	mux.HandleFunc("POST /sites/{id}/{what}", func(w http.ResponseWriter, r *http.Request) {
		var id int
		if _, err := fmt.Sscan(r.PathValue("id"), &id); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		s := c.sites[id]
		c.mu.Unlock()
		if err := s.command(w, r.PathValue("what"), json.NewDecoder(r.Body)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	c.control = httptest.NewServer(mux)
	t.Cleanup(c.control.Close)
	return c
}

// key is the hash of the public key that all TLS servers of httptest have:
// Chromium has to be told to trust it.
func (c *town) key() string {
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	sum := sha256.Sum256(server.Certificate().RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func reply(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // who does not read it fails by that
}

// fault is what happens to requests instead of an answer in time.
type fault struct {
	Path string // a prefix
	// Do is one of
	//	close: the connection is closed, nothing was processed
	//	drop:  processed, then the connection is closed without an answer
	//	cut:   processed, and half of the answer delivered
	//	hang:  processed, and never answered
	//	hold:  processed, and answered upon the next "release"
	//	answer: not processed; Status, Header and Body are the answer
	Do     string
	Times  int // so many requests; 0: all until the faults are replaced
	Status int
	Header map[string]string
	Body   string
}

// event is a request that reached the site.
type event struct {
	Path   string          `json:"path"`
	Method string          `json:"method"`
	Status int             `json:"status"`
	Fault  string          `json:"fault,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	Bearer string          `json:"bearer,omitempty"` // jti and subject of the access token
	Origin string          `json:"origin,omitempty"`
	At     time.Time       `json:"at"`
}

// faults stand between the browser and a site, and count.
type faults struct {
	mu      sync.Mutex
	rules   []fault
	log     []event
	held    int
	release chan struct{} // closed for those that are held now
}

func (f *faults) match(path string) fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, rule := range f.rules {
		if !strings.HasPrefix(path, rule.Path) {
			continue
		}
		if rule.Times > 0 {
			if f.rules[i].Times--; f.rules[i].Times == 0 {
				f.rules = append(f.rules[:i:i], f.rules[i+1:]...)
			}
		}
		return rule
	}
	return fault{}
}

func (f *faults) note(e event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, e)
}

func (f *faults) hold(ctx context.Context) {
	f.mu.Lock()
	if f.release == nil {
		f.release = make(chan struct{})
	}
	released := f.release
	f.held++
	f.mu.Unlock()
	select {
	case <-released:
	case <-ctx.Done(): // the browser has given up
	}
	f.mu.Lock()
	f.held--
	f.mu.Unlock()
}

func (f *faults) letGo() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.release != nil {
		close(f.release)
		f.release = nil
	}
}

func (f *faults) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := event{Path: r.URL.Path, Method: r.Method, At: time.Now(), Body: requestBody(r), Origin: r.Header.Get("Origin"), Bearer: bearer(r)}
		var rule fault
		if r.Method != http.MethodOptions {
			rule = f.match(r.URL.Path)
		}
		e.Fault = rule.Do
		switch rule.Do {
		case "":
			status := &statusWriter{ResponseWriter: w, status: http.StatusOK, sent: func(status int) { e.Status = status; f.note(e) }}
			next.ServeHTTP(status, r)
			return
		case "close":
			f.note(e)
			panic(http.ErrAbortHandler)
		case "answer":
			for name, value := range rule.Header {
				w.Header().Set(name, value)
			}
			e.Status = rule.Status
			f.note(e)
			w.WriteHeader(rule.Status)
			_, _ = w.Write([]byte(rule.Body)) // who has gone needs no answer
			return
		}
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r.WithContext(context.WithoutCancel(r.Context())))
		e.Status = answer.Code
		f.note(e)
		body := answer.Body.Bytes()
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		switch rule.Do {
		case "drop":
			panic(http.ErrAbortHandler)
		case "hang":
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		case "cut":
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			body = body[:len(body)/2]
		case "hold":
			f.hold(r.Context())
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(body) // who has gone needs no answer
	})
}

// statusWriter tells of the status before the first byte goes out, so that the
// log has the request when the browser has its answer.
type statusWriter struct {
	http.ResponseWriter
	status int
	once   sync.Once
	sent   func(status int)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) WriteHeader(status int) {
	w.once.Do(func() { w.sent(status) })
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	w.once.Do(func() { w.sent(http.StatusOK) })
	return w.ResponseWriter.Write(p)
}

// command is what a case asks of its site beside the API.
func (s *shop) command(w http.ResponseWriter, what string, in *json.Decoder) error {
	switch what {
	case "forward":
		var seconds float64
		if err := in.Decode(&seconds); err != nil {
			return err
		}
		s.ahead.Add(int64(seconds * float64(time.Second)))
	case "faults":
		var rules []fault
		if err := in.Decode(&rules); err != nil {
			return err
		}
		s.mu.Lock()
		s.rules = rules
		s.mu.Unlock()
	case "release":
		s.letGo()
	case "log":
		s.mu.Lock()
		defer s.mu.Unlock()
		reply(w, map[string]any{"log": s.log, "held": s.held})
		return nil
	default:
		return errors.New("no such command: " + url.PathEscape(what))
	}
	reply(w, nil)
	return nil
}
