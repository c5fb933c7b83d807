package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
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
	clock := &fakeClock{now: start} // it stands still, so the cooldown never ends
	v := open(t, Config{Authority: a.serve(t).URL, Clock: clock.Now, Logger: slog.New(slog.DiscardHandler)})
	payload, _ := json.Marshal(goodClaims(start))
	good := es.sign(t, TokenType, string(payload))
	_, rest, _ := strings.Cut(good, ".")
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 25_000 {
				kid := fmt.Sprintf("%d-%d", g, i)
				_, err := v.keys.find(t.Context(), kid, start)
				if i%100 == 0 { // the whole way
					_, err = v.Check(t.Context(), b64(`{"alg":"ES256","kid":"`+kid+`","typ":"at+jwt"}`)+"."+rest)
				}
				if !errors.Is(err, ErrTokenInvalid) {
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

// Keys that come out of a cache, as a relay's, are as old as it says: however
// many lie between, they are trusted for Config.MaxKeyAge in all.
func TestKeysAreAsOldAsTheCacheSays(t *testing.T) {
	es := newKey(t, "k1", jws.ES256)
	a := newAuthority(es)
	a.replace = map[string]http.HandlerFunc{"/.well-known/jwks.json": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		w.Header().Set("Age", "3000")
		w.Write(jwk.MarshalSet(jwk.Set{Version: 1, Keys: []*jws.PublicKey{es.public}}))
	}}
	server := a.serve(t)
	for _, tc := range []struct {
		most time.Duration
		want error
	}{{time.Hour, nil}, {40 * time.Minute, ErrUnavailable}} {
		v := open(t, Config{Authority: server.URL, MaxKeyAge: tc.most})
		check(t, v, es.mint(t, goodClaims(time.Now())), tc.want)
	}
}
