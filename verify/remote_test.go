package verify

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil/internal/jwk"
	"github.com/counterfoil/counterfoil/internal/jws"
)

// authority plays the other side of the wire.
type authority struct {
	mu         sync.Mutex
	version    int64
	keys       []*signingKey
	issuer     string
	lifetime   int64
	down       bool
	introspect http.HandlerFunc
	replace    map[string]http.HandlerFunc // by path

	discoveries, fetches atomic.Int64
}

func newAuthority(keys ...*signingKey) *authority {
	return &authority{version: 1, keys: keys, issuer: testIssuer, lifetime: 300}
}

func (a *authority) change(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	down, other, introspect := a.down, a.replace[r.URL.Path], a.introspect
	a.mu.Unlock()
	switch {
	case down:
		w.WriteHeader(http.StatusBadGateway)
	case other != nil:
		if strings.HasSuffix(r.URL.Path, "jwks.json") {
			a.fetches.Add(1)
		}
		other(w, r)
	case r.Method == "GET" && r.URL.Path == "/.well-known/oauth-authorization-server":
		a.discoveries.Add(1)
		a.mu.Lock()
		defer a.mu.Unlock()
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		json.NewEncoder(w).Encode(map[string]any{
			"issuer": a.issuer, "jwks_uri": "http://192.0.2.1/never/asked", "cf_max_token_lifetime": a.lifetime,
		})
	case r.Method == "GET" && r.URL.Path == "/.well-known/jwks.json":
		a.fetches.Add(1)
		a.mu.Lock()
		defer a.mu.Unlock()
		set := jwk.Set{Version: a.version}
		for _, k := range a.keys {
			set.Keys = append(set.Keys, k.public)
		}
		w.Header().Set("Content-Type", "application/jwk-set+json")
		w.Header().Set("Cache-Control", "max-age=300")
		w.Write(jwk.MarshalSet(set))
	case r.Method == "POST" && r.URL.Path == "/oauth2/introspect" && introspect != nil:
		introspect(w, r)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (a *authority) serve(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	return s
}

func open(t *testing.T, cfg Config) *Verifier {
	t.Helper()
	cfg.Issuer, cfg.Audience = testIssuer, testAudience
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	v, err := New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func check(t *testing.T, v *Verifier, token string, want error, rules ...Rule) {
	t.Helper()
	if _, err := v.Check(t.Context(), token, rules...); !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestRemoteKnownKidCausesNoIO(t *testing.T) {
	es, ed := newKey(t, "k1", jws.ES256), newKey(t, "k2", jws.EdDSA)
	a := newAuthority(es, ed)
	server := a.serve(t)
	v := open(t, Config{Authority: server.URL + "/"})
	if !v.Ready() || v.Wait(t.Context()) != nil {
		t.Fatal("not ready")
	}
	server.Close()
	for range 10 {
		check(t, v, es.mint(t, goodClaims(time.Now())), nil)
		check(t, v, ed.mint(t, goodClaims(time.Now())), nil)
	}
	check(t, v, es.mint(t, goodClaims(time.Now()).with(claims{"exp": time.Now().Unix() + 400})), ErrTokenInvalid) // longer than discovery says
	if n := a.fetches.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	check(t, v, es.mint(t, goodClaims(time.Now())), nil)
}

func TestSEC80RandomKidsCauseTwoFetchesAtMost(t *testing.T) {
	es := newKey(t, "k1", jws.ES256)
	a := newAuthority(es)
	v := open(t, Config{Authority: a.serve(t).URL})
	payload, _ := json.Marshal(goodClaims(time.Now()))
	good := es.sign(t, TokenType, string(payload))
	_, rest, _ := strings.Cut(good, ".")
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 25_000 {
				header := fmt.Sprintf(`{"alg":"ES256","kid":"%d-%d","typ":"at+jwt"}`, g, i)
				if _, err := v.Check(t.Context(), b64(header)+"."+rest); !errors.Is(err, ErrTokenInvalid) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := a.fetches.Load(); n > 2 {
		t.Errorf("%d fetches", n)
	}
	check(t, v, good, nil)
}

func TestUnknownKidFetchesOnceForAllAndThenRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh, third := newKey(t, "k1", jws.ES256), newKey(t, "k2", jws.ES256), newKey(t, "k3", jws.ES256)
		a := newAuthority(old)
		v := open(t, Config{Authority: "http://authority", HTTPClient: inside(a)})
		a.change(func() { a.keys, a.version = []*signingKey{old, fresh}, 2 })
		token := fresh.mint(t, goodClaims(time.Now()))
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { check(t, v, token, nil) })
		}
		wg.Wait()
		if n := a.fetches.Load(); n != 2 {
			t.Errorf("%d fetches", n)
		}
		// The cooldown holds after success …
		a.change(func() { a.keys, a.version = []*signingKey{old, fresh, third}, 3 })
		check(t, v, third.mint(t, goodClaims(time.Now())), ErrTokenInvalid)
		time.Sleep(kidCooldown - time.Second)
		check(t, v, third.mint(t, goodClaims(time.Now())), ErrTokenInvalid)
		time.Sleep(kidCooldown/3 + time.Second)
		// … and after failure, which costs no good key.
		a.change(func() { a.down = true })
		check(t, v, third.mint(t, goodClaims(time.Now())), ErrTokenInvalid)
		a.change(func() { a.down = false })
		check(t, v, third.mint(t, goodClaims(time.Now())), ErrTokenInvalid)
		check(t, v, old.mint(t, goodClaims(time.Now())), nil)
		time.Sleep(kidCooldown + kidCooldown/3)
		check(t, v, third.mint(t, goodClaims(time.Now())), nil)
		if n := a.fetches.Load(); n != 3 { // the failed one was not counted
			t.Errorf("%d fetches", n)
		}
		v.Close()
	})
}

func TestUnknownKidWaitsTwoSecondsAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := newKey(t, "k1", jws.ES256), newKey(t, "k2", jws.ES256)
		a := newAuthority(old)
		v := open(t, Config{Authority: "http://authority", HTTPClient: inside(a)})
		a.change(func() {
			a.replace = map[string]http.HandlerFunc{"/.well-known/jwks.json": func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(3 * time.Second)
				a.change(func() { a.replace = nil; a.keys = append(a.keys, fresh) })
				a.ServeHTTP(w, r)
			}}
		})
		token := fresh.mint(t, goodClaims(time.Now()))
		begin := time.Now()
		check(t, v, token, ErrUnavailable)
		if took := time.Since(begin); took != kidWait {
			t.Errorf("took %v", took)
		}
		time.Sleep(1100 * time.Millisecond)
		check(t, v, token, nil)
		v.Close()
	})
}

func TestSEC74KeySetIsReplacedAndNeverGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stolen, good, late := newKey(t, "k1", jws.ES256), newKey(t, "k2", jws.ES256), newKey(t, "k3", jws.EdDSA)
		a := newAuthority(stolen, good)
		v := open(t, Config{Authority: "http://authority", HTTPClient: inside(a)})
		check(t, v, stolen.mint(t, goodClaims(time.Now())), nil)

		a.change(func() { a.keys, a.version, a.lifetime = []*signingKey{good, late}, 5, 600 })
		time.Sleep(defaultMaxAge)
		check(t, v, stolen.mint(t, goodClaims(time.Now())), ErrTokenInvalid)
		check(t, v, late.mint(t, goodClaims(time.Now()).with(claims{"exp": time.Now().Unix() + 600})), nil)

		for name, damage := range map[string]func(){
			"older":   func() { a.keys, a.version = []*signingKey{stolen}, 4 },
			"empty":   func() { a.keys, a.version = nil, 6 },
			"foreign": func() { a.issuer = "https://other.example"; a.keys = []*signingKey{stolen}; a.version = 6 },
			"down":    func() { a.down = true },
		} {
			a.change(damage)
			time.Sleep(2 * defaultMaxAge)
			check(t, v, stolen.mint(t, goodClaims(time.Now())), ErrTokenInvalid)
			if _, err := v.Check(t.Context(), good.mint(t, goodClaims(time.Now()))); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			a.change(func() { a.down, a.issuer, a.keys, a.version = false, testIssuer, []*signingKey{good, late}, 5 })
			time.Sleep(2 * longestRetry)
		}

		// A key that was revoked stays so, whatever the set says.
		v.revocations.Apply(Revocation{Kind: RevokeKey, ID: "k2"})
		a.change(func() { a.version = 7 })
		time.Sleep(2 * defaultMaxAge)
		check(t, v, good.mint(t, goodClaims(time.Now())), ErrTokenInvalid)
		v.Close()
	})
}

func TestSEC81OldKeysFailClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		es := newKey(t, "k1", jws.ES256)
		a := newAuthority(es)
		v := open(t, Config{Authority: "http://authority", HTTPClient: inside(a), MaxKeyAge: time.Hour})
		a.change(func() { a.down = true })
		time.Sleep(50 * time.Minute)
		check(t, v, es.mint(t, goodClaims(time.Now())), nil)
		time.Sleep(11 * time.Minute)
		check(t, v, es.mint(t, goodClaims(time.Now())), ErrUnavailable)
		if v.Ready() {
			t.Error("ready")
		}
		a.change(func() { a.down = false })
		time.Sleep(longestRetry)
		check(t, v, es.mint(t, goodClaims(time.Now())), nil)
		v.Close()
	})
}

func TestStartWhileTheAuthorityIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		es := newKey(t, "k1", jws.ES256)
		a := newAuthority(es)
		a.down = true
		begin := time.Now()
		v := open(t, Config{Authority: "http://authority", HTTPClient: inside(a)}) // its ctx ends after 5 s
		if took := time.Since(begin); took != 5*time.Second || v.Ready() {
			t.Errorf("took %v", took)
		}
		check(t, v, es.mint(t, goodClaims(time.Now())), ErrUnavailable)
		if got := code(t, serve(v.Require(), request("Authorization", "Bearer "+es.mint(t, goodClaims(time.Now()))))); got != "503 unavailable" {
			t.Error(got)
		}
		if got := code(t, serve(v.Require(), request())); got != "401 credential_missing" {
			t.Error(got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := v.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		a.change(func() { a.down = false })
		if err := v.Wait(t.Context()); err != nil || !v.Ready() {
			t.Error(err)
		}
		check(t, v, es.mint(t, goodClaims(time.Now())), nil)
		v.Close()
	})
}

func TestSEC78AnotherIssuersAuthorityIsAConfigError(t *testing.T) {
	for _, issuer := range []string{"https://other.example", testIssuer + "/", strings.ToUpper(testIssuer), ""} {
		a := newAuthority(newKey(t, "k1", jws.ES256))
		a.issuer = issuer
		_, err := New(t.Context(), Config{Issuer: testIssuer, Audience: testAudience, Authority: a.serve(t).URL, Logger: quiet})
		var e *ConfigError
		if !errors.As(err, &e) || e.Field != "Issuer" || a.fetches.Load() != 0 {
			t.Errorf("%q: %v", issuer, err)
		}
	}
}

// SEC-79, without the address block: addresses come from configuration only.
func TestSEC79LimitsOfFetching(t *testing.T) {
	es := newKey(t, "k1", jws.ES256)
	set := jwk.MarshalSet(jwk.Set{Version: 9, Keys: []*jws.PublicKey{es.public}})
	var redirected atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		redirected.Store(true)
		w.Header().Set("Content-Type", "application/json")
		w.Write(set)
	}))
	defer elsewhere.Close()
	answer := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	for name, h := range map[string]http.HandlerFunc{
		"redirect":     func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
		"too long":     answer(200, "application/json", strings.Repeat(" ", 256<<10)+string(set)),
		"type":         answer(200, "text/html", string(set)),
		"no type":      answer(200, "", string(set)),
		"status":       answer(203, "application/json", string(set)),
		"not JSON":     answer(200, "application/json", "<html>"),
		"no keys":      answer(200, "application/json", `{"keys":[]}`),
		"private key":  answer(200, "application/json", strings.Replace(string(set), `"kid"`, `"d":"AAAA","kid"`, 1)),
		"twice a name": answer(200, "application/json", strings.Replace(string(set), `"keys":`, `"keys":[],"keys":`, 1)),
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(es)
			v := open(t, Config{Authority: a.serve(t).URL})
			a.change(func() { a.replace = map[string]http.HandlerFunc{"/.well-known/jwks.json": h} })
			before := v.keys.(*remoteKeys).set.Load()
			check(t, v, newKey(t, "unknown", jws.ES256).mint(t, goodClaims(time.Now())), ErrTokenInvalid)
			if a.fetches.Load() != 2 || v.keys.(*remoteKeys).set.Load() != before {
				t.Errorf("%d fetches, or the answer was taken", a.fetches.Load())
			}
			check(t, v, es.mint(t, goodClaims(time.Now())), nil)
		})
	}
	if redirected.Load() {
		t.Error("a redirect was followed")
	}
	t.Run("never answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			_, err := fetch(t.Context(), newClient(inside(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
			}))), "http://authority/")
			if took := time.Since(begin); err == nil || took != fetchTimeout {
				t.Errorf("%v after %v", err, took)
			}
		})
	})
}

func TestMaxAge(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": defaultMaxAge, "max-age=300": 300 * time.Second, "public, Max-Age=600": 600 * time.Second,
		"max-age=0": 30 * time.Second, "max-age=999999": time.Hour, "max-age=x": defaultMaxAge, "no-store": defaultMaxAge,
	} {
		if got := maxAge(http.Header{"Cache-Control": {value}}); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func TestCacheFile(t *testing.T) {
	es := newKey(t, "k1", jws.ES256)
	a := newAuthority(es)
	server := a.serve(t)
	file := filepath.Join(t.TempDir(), "keys.json")
	v := open(t, Config{Authority: server.URL, Cache: file})
	v.revocations.Apply(Revocation{Kind: RevokeKey, ID: "stolen"}, Revocation{Kind: RevokeSession, ID: "s9", Until: time.Now().Add(time.Hour)})
	v.Close()
	v.keys.(*remoteKeys).saveCache()
	server.Close()

	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode(), err)
	}
	if left, _ := filepath.Glob(file + ".*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	saved, _ := os.ReadFile(file)

	// The authority is gone; New returns at once.
	v = open(t, Config{Authority: server.URL, Cache: file})
	check(t, v, es.mint(t, goodClaims(time.Now())), nil)
	check(t, v, es.mint(t, goodClaims(time.Now()).with(claims{"sid": "s9"})), ErrTokenRevoked)
	check(t, v, es.mint(t, goodClaims(time.Now()).with(claims{"exp": time.Now().Unix() + 301})), ErrTokenInvalid)
	if !v.revocations.KeyRevoked("stolen") {
		t.Error("a revoked key was forgotten")
	}

	change := func(old, new string) string {
		s := strings.Replace(string(saved), old, new, 1)
		if s == string(saved) {
			t.Fatalf("%s is not in %s", old, saved)
		}
		return s
	}
	for _, tc := range []struct {
		name, text string
		mode       os.FileMode
	}{
		{"others can read it", string(saved), 0o640},
		{"others can write it", string(saved), 0o602},
		{"another issuer", change(testIssuer, "https://other.example"), 0o600},
		{"a later format", change(`"format":1`, `"format":2`), 0o600},
		{"cut short", string(saved[:len(saved)/2]), 0o600},
		{"empty", "", 0o600},
		{"foreign", `{"hello":"world"}`, 0o600},
		{"bad key", change(`"kty":"EC"`, `"kty":"RSA"`), 0o600},
		{"bad revocations", change(`["k",`, `[5,`), 0o600},
		{"no lifetime", change(`"max_token_lifetime":300`, `"max_token_lifetime":0`), 0o600},
		{"too old", change(`"saved_at":`, `"saved_at":1,"x":`), 0o600},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "keys.json")
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, tc.mode); err != nil {
				t.Fatal(err)
			}
			var log lockedBuffer
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			v, err := New(ctx, Config{Issuer: testIssuer, Audience: testAudience, Authority: server.URL, Cache: file,
				Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			if v.Ready() || !strings.Contains(log.String(), "passed over") {
				t.Errorf("ready: %v, log: %s", v.Ready(), log.String())
			}
		})
	}
	t.Run("members of a later version", func(t *testing.T) {
		if err := os.WriteFile(file, []byte(change(`{`, `{"position":"7.10422",`)), 0o600); err != nil {
			t.Fatal(err)
		}
		check(t, open(t, Config{Authority: server.URL, Cache: file}), es.mint(t, goodClaims(time.Now())), nil)
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestLiveRemote(t *testing.T) {
	es := newKey(t, "k1", jws.ES256)
	a := newAuthority(es)
	server := a.serve(t)
	var log lockedBuffer
	v := open(t, Config{Authority: server.URL, APIKey: "cf_sk_hush", Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	token := es.mint(t, goodClaims(time.Now()))
	sid := goodClaims(start)["sid"]

	answer := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer cf_sk_hush" || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" ||
				r.PostFormValue("token") != token || r.URL.RawQuery != "" {
				t.Errorf("%v %v", r.URL, r.Header)
			}
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	const js = "application/json"
	for _, tc := range []struct {
		name string
		h    http.HandlerFunc
		want error
	}{
		{"active", answer(200, js, fmt.Sprintf(`{"active":true,"sid":%q,"aud":["x"],"more":{}}`, sid)), nil},
		{"bare active", answer(200, js, `{"active":true}`), nil},
		{"inactive", answer(200, js, `{"active":false}`), ErrTokenRevoked},
		{"stale", answer(200, js, `{"active":false,"cf_code":"token_stale"}`), ErrTokenStale},
		{"revoked", answer(200, js, `{"active":false,"cf_code":"session_revoked"}`), ErrSessionRevoked},
		{"expired", answer(200, js, `{"active":false,"cf_code":"session_expired"}`), ErrSessionExpired},
		{"a code we do not know", answer(200, js, `{"active":false,"cf_code":"moon_phase"}`), ErrTokenRevoked},
		{"another session", answer(200, js, `{"active":true,"sid":"x"}`), ErrUnavailable},
		{"nothing clear", answer(200, js, `{"cf_code":"token_stale"}`), ErrUnavailable},
		{"twice", answer(200, js, `{"active":false,"active":true}`), ErrUnavailable},
		{"a string", answer(200, js, `{"active":"true"}`), ErrUnavailable},
		{"case", answer(200, js, `{"ACTIVE":true}`), ErrUnavailable},
		{"HTML", answer(200, "text/html", `{"active":true}`), ErrUnavailable},
		{"bad API key", answer(401, "application/problem+json", `{"code":"token_invalid"}`), ErrUnavailable},
		{"scope missing", answer(403, "application/problem+json", `{}`), ErrUnavailable},
		{"overload", answer(503, "application/problem+json", `{}`), ErrUnavailable},
		{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusTemporaryRedirect) }, ErrUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a.change(func() { a.introspect = tc.h })
			check(t, v, token, tc.want, Live())
		})
	}
	a.change(func() {
		a.introspect = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	w := serve(v.Require(Live()), request("Authorization", "Bearer "+token))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "7" {
		t.Errorf("%d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
	server.Close()
	check(t, v, token, ErrUnavailable, Live())
	check(t, v, token, nil)
	if s := log.String(); strings.Contains(s, "hush") || strings.Contains(s, token) || strings.Contains(s, strings.Split(token, ".")[2]) {
		t.Errorf("SEC-123: the log holds a secret: %s", s)
	}
}

func TestLiveRemoteTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		es := newKey(t, "k1", jws.ES256)
		a := newAuthority(es)
		a.introspect = func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // only then does the server look whether the client has gone
			<-r.Context().Done()
		}
		v := open(t, Config{Authority: "http://authority", APIKey: "cf_sk_hush", HTTPClient: inside(a)})
		begin := time.Now()
		check(t, v, es.mint(t, goodClaims(time.Now())), ErrUnavailable, Live())
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("took %v", took)
		}
		v.Close()
	})
}

func TestConcurrentUse(t *testing.T) {
	first, second := newKey(t, "k1", jws.ES256), newKey(t, "k2", jws.EdDSA)
	a := newAuthority(first)
	a.introspect = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"active":true}`)
	}
	v := open(t, Config{Authority: a.serve(t).URL, APIKey: "cf_sk_hush", Cache: filepath.Join(t.TempDir(), "keys.json")})
	tokens := []string{first.mint(t, goodClaims(time.Now())), second.mint(t, goodClaims(time.Now()))}
	a.change(func() { a.keys, a.version = []*signingKey{first, second}, 2 })
	route := v.Require(Live())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				v.revocations.Apply(Revocation{Kind: RevokeSession, ID: fmt.Sprint(i, j), Until: time.Now().Add(time.Minute)})
				check(t, v, tokens[(i+j)%2], nil)
				if w := serve(route, request("Authorization", "Bearer "+tokens[j%2])); w.Code != 200 {
					t.Error(w.Code)
				}
			}
		})
	}
	wg.Wait()
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// inside is a client whose requests reach the handler over a pipe, so that a
// bubble of synctest holds both ends.
func inside(h http.Handler) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // no connection outlives its request, and the bubble
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				s := &http.Server{Handler: h}
				_ = s.Serve(&oneConn{there})
			}()
			return here, nil
		},
	}}
}

// oneConn is a listener with one connection to give.
type oneConn struct{ conn net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
