package counterfoil_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

const degraded = 5 * time.Minute

// lines is a log that other goroutines write.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

// cutOff is an authority whose store the test cuts off.
type cutOff struct {
	*counterfoil.Authority
	t     *testing.T
	store *cutStore
	log   *lines
}

func openCutOff(t *testing.T, store counterfoil.Store, change func(*counterfoil.Config)) *cutOff {
	t.Helper()
	if store == nil {
		store = newStore(t)
	}
	c := &cutOff{t: t, store: newCutStore(store), log: &lines{}}
	c.Authority = open(t, c.store, func(cfg *counterfoil.Config) {
		cfg.Degraded, cfg.Logger = degraded, slog.New(slog.NewTextHandler(c.log, nil))
		if change != nil {
			change(cfg)
		}
	})
	settled(t, c.Authority)
	t.Cleanup(func() { c.store.set(answering) })
	return c
}

// settled waits where the store takes its time to know that entries are kept
// for long enough.
func settled(t *testing.T, a *counterfoil.Authority) {
	t.Helper()
	for range 61 {
		if g := signIn(t, a, "settle"); a.Stats().DegradedCopies > 0 {
			if err := a.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut); err != nil {
				t.Fatal(err)
			}
			return
		}
		time.Sleep(time.Second)
	}
	t.Fatal("no session was copied for a minute")
}

func (c *cutOff) tryRefresh(g *counterfoil.Grant) (*counterfoil.Grant, error) {
	return c.Refresh(c.t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{})
}

// wantDegraded refreshes and wants a token from a copy.
func (c *cutOff) wantDegraded(g *counterfoil.Grant) *counterfoil.Grant {
	c.t.Helper()
	fresh, err := c.tryRefresh(g)
	if err != nil || !fresh.Degraded {
		c.t.Fatalf("cut off: %+v, %v; want a token from the copy", fresh, err)
	}
	return fresh
}

// wantUnavailable refreshes and wants neither a token nor an end.
func (c *cutOff) wantUnavailable(g *counterfoil.Grant, why string) {
	c.t.Helper()
	fresh, err := c.tryRefresh(g)
	var ended *counterfoil.EndedError
	if !errors.Is(err, verify.ErrUnavailable) || errors.As(err, &ended) {
		c.t.Errorf("%s: %+v, %v; want unavailable", why, fresh, err)
	}
}

func TestDegradedTokensDieWithTheirRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openCutOff(t, nil, nil)
		defer c.Close()
		g := signIn(t, c.Authority, "alice")
		time.Sleep(40 * time.Second)
		read := time.Now()
		g2 := refresh(t, c.Authority, g)
		g2.SessionToken = g.SessionToken
		time.Sleep(10 * time.Second)
		c.store.set(failing)
		var last, exp time.Time
		for range 400 {
			fresh, err := c.tryRefresh(g2)
			now := time.Now()
			if err != nil {
				wantErr(t, err, verify.ErrUnavailable)
				break
			}
			last, exp = now, fresh.ExpiresAt
			claims, err := check(t, c.Authority, fresh.AccessToken)
			if err != nil || !claims.Degraded || !fresh.Degraded {
				t.Fatalf("%s after the read: %+v, %v", now.Sub(read), claims, err)
			}
			if claims.ExpiresAt.After(read.Add(degraded)) || !claims.ExpiresAt.Equal(fresh.ExpiresAt) {
				t.Fatalf("minted %s after the read, ends %s after it", now.Sub(read), claims.ExpiresAt.Sub(read))
			}
			if claims.IssuedAt.After(read) || read.Sub(claims.IssuedAt) >= time.Second {
				t.Fatalf("iat is %s from the read", claims.IssuedAt.Sub(read))
			}
			if left := claims.ExpiresAt.Sub(now); fresh.ExpiresIn != left || left > time.Minute || left < 5*time.Second || fresh.RefreshAfter > left {
				t.Fatalf("%s after the read: expires in %s, %s left, refresh after %s", now.Sub(read), fresh.ExpiresIn, left, fresh.RefreshAfter)
			}
			time.Sleep(time.Second)
		}
		if age := last.Sub(read); age < degraded-10*time.Second || age > degraded-4*time.Second {
			t.Errorf("the last one was minted %s after the read", age)
		}
		if s := c.Stats(); s.DegradedMints < 200 || !s.Degraded {
			t.Errorf("counted: %+v", s)
		}
		sleepTo(exp.Add(6 * time.Second))
		c.store.set(answering)
		time.Sleep(2 * time.Second)
		if fresh := refresh(t, c.Authority, g); fresh.Degraded {
			t.Error("the store answers, and the token is from a copy")
		}
		if s := c.Stats(); s.Degraded || c.log.count("cut off from the store") != 1 || c.log.count("the store answers again") != 1 {
			t.Errorf("began and ended: %+v\n%s", s, c.log.buf.String())
		}
	})
}

func TestDegradedIsOffByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cutOff{t: t, store: newCutStore(newStore(t))}
		c.Authority = open(t, c.store, nil)
		defer c.Close()
		g := signIn(t, c.Authority, "alice")
		if s := c.Stats(); s.DegradedCopies != 0 {
			t.Errorf("%d copies, and nobody asked for any", s.DegradedCopies)
		}
		c.store.set(failing)
		c.wantUnavailable(g, "off")
		if _, on := c.Degraded(); on || c.ReadyDegraded(c.Ready(t.Context())) {
			t.Error("degraded, and nobody asked for it")
		}
		if longest := c.MaxTokenLifetime(); longest != time.Minute {
			t.Errorf("tokens live at most %s", longest)
		}
		c.store.set(answering)
	})
}

func TestDegradedNodeWhoseStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openCutOff(t, nil, nil)
		defer c.Close()
		g, stranger := signIn(t, c.Authority, "alice"), signIn(t, c.Authority, "bob")
		if err := c.RevokeSession(t.Context(), stranger.Session.ID, counterfoil.SignedOut); err != nil {
			t.Fatal(err)
		}
		c.store.set(hanging)
		began := time.Now()
		c.wantDegraded(g)
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("the first refresh took %s", took)
		}
		began = time.Now()
		c.wantDegraded(g)
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("the second refresh took %s", took)
		}
		for range 200 { // each read hangs on: their number is bounded
			c.wantDegraded(g)
		}
		c.store.mu.Lock()
		reads := c.store.reads
		c.store.mu.Unlock()
		if reads > 80 {
			t.Errorf("%d reads are under way", reads)
		}
		c.wantUnavailable(stranger, "no copy")
		c.store.set(answering)
		time.Sleep(2 * time.Second)
		if fresh := refresh(t, c.Authority, g); fresh.Degraded {
			t.Error("the store answers, and the token is from a copy")
		}
	})
}

func TestDegradedMintsForTheRightSecretOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openCutOff(t, nil, func(cfg *counterfoil.Config) { cfg.MoreClientIDs = []string{"shop"} })
		defer c.Close()
		g, other := signIn(t, c.Authority, "alice"), signIn(t, c.Authority, "alice")
		secret, _ := c.NewSessionSecret(g.Session.ID)
		c.store.set(failing)
		forged := *g
		forged.SessionToken = secret
		c.wantUnavailable(&forged, "another secret") // and no end: only the store knows
		_, err := c.Refresh(t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{ClientID: "shop"})
		wantErr(t, err, verify.ErrUnavailable)
		c.wantDegraded(g)
		c.wantDegraded(other)
		for name, call := range map[string]func() error{
			"authenticate": func() error { _, err := c.Authenticate(t.Context(), g.SessionToken.Reveal()); return err },
			"exchange": func() error {
				_, err := c.Exchange(t.Context(), g.AccessToken, counterfoil.ExchangeRequest{})
				return err
			},
			"live check": func() error { _, err := check(t, c.Authority, g.AccessToken, verify.Live()); return err },
			"introspect": func() error { _, err := c.Introspect(t.Context(), g.AccessToken); return err },
		} {
			if err := call(); !errors.Is(err, verify.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
		}
		fresh := c.wantDegraded(g)
		for name, rule := range map[string]verify.Rule{"Live": verify.Live(), "MaxFeedAge": verify.MaxFeedAge(time.Hour), "NoDegraded": verify.NoDegraded()} {
			if _, err := check(t, c.Authority, fresh.AccessToken, rule); !errors.Is(err, verify.ErrTokenTooOld) {
				t.Errorf("%s: %v", name, err)
			}
		}
		v, _ := c.Verifier("")
		if n := v.Stats().Degraded; n != 3 {
			t.Errorf("%d degraded tokens counted", n)
		}
		if _, err := check(t, c.Authority, g.AccessToken, verify.NoDegraded()); err != nil {
			t.Errorf("a token from the store: %v", err)
		}
	})
}

// Whatever this node has heard of is minted over by no copy.
func TestDegradedKeepsToWhatTheNodeKnows(t *testing.T) {
	for name, end := range map[string]func(c *cutOff, other *counterfoil.Authority, g *counterfoil.Grant) error{
		"ended through another node": func(_ *cutOff, other *counterfoil.Authority, g *counterfoil.Grant) error {
			return other.RevokeSession(context.Background(), g.Session.ID, counterfoil.Revoked)
		},
		"signed out everywhere through another node": func(_ *cutOff, other *counterfoil.Authority, g *counterfoil.Grant) error {
			return other.RevokeSubject(context.Background(), g.Session.Subject, counterfoil.PasswordChanged)
		},
		"rights changed through another node": func(_ *cutOff, other *counterfoil.Authority, g *counterfoil.Grant) error {
			return other.RightsChanged(context.Background(), g.Session.Subject)
		},
		"key revoked through another node": func(c *cutOff, other *counterfoil.Authority, g *counterfoil.Grant) error {
			return other.RevokeKey(context.Background(), kidOf(g.AccessToken))
		},
		"ended here": func(c *cutOff, _ *counterfoil.Authority, g *counterfoil.Grant) error {
			return c.RevokeSession(context.Background(), g.Session.ID, counterfoil.SignedOut)
		},
		"the end failed here": func(c *cutOff, _ *counterfoil.Authority, g *counterfoil.Grant) error {
			c.store.set(failing)
			err := c.RevokeSession(context.Background(), g.Session.ID, counterfoil.SignedOut)
			if !errors.Is(err, verify.ErrUnavailable) {
				return errors.Join(errors.New("the end did not fail"), err)
			}
			return nil
		},
		"the sign-out everywhere failed here": func(c *cutOff, _ *counterfoil.Authority, g *counterfoil.Grant) error {
			c.store.set(failing)
			err := c.RevokeSubject(context.Background(), g.Session.Subject, counterfoil.SignedOutEverywhere)
			if !errors.Is(err, verify.ErrUnavailable) {
				return errors.Join(errors.New("the end did not fail"), err)
			}
			return nil
		},
		"everything was moved": func(c *cutOff, _ *counterfoil.Authority, g *counterfoil.Grant) error {
			c.store.set(moved)
			c.wantUnavailable(g, "moved")
			return nil
		},
		"the follower hears that everything was moved": func(c *cutOff, other *counterfoil.Authority, g *counterfoil.Grant) error {
			c.store.set(moved)
			return other.RightsChanged(context.Background(), "nobody") // a change wakes it
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, seal := newStore(t), newSeal()
				c := openCutOff(t, store, func(cfg *counterfoil.Config) { cfg.Seal = seal })
				defer c.Close()
				other := open(t, store, func(cfg *counterfoil.Config) { cfg.Seal = seal })
				defer other.Close()
				g, stays := signIn(t, c.Authority, "alice"), signIn(t, c.Authority, "bob")
				if err := end(c, other, g); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				c.store.set(failing)
				if strings.Contains(name, "key") {
					if fresh := c.wantDegraded(g); kidOf(fresh.AccessToken) == kidOf(g.AccessToken) {
						t.Error("signed with a revoked key")
					}
					return
				}
				c.wantUnavailable(g, name)
				if !strings.Contains(name, "moved") {
					c.wantDegraded(stays)
				}
			})
		})
	}
}

func TestDegradedNeverOutlivesTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openCutOff(t, nil, func(cfg *counterfoil.Config) {
			cfg.Lifetimes = counterfoil.Lifetimes{Absolute: time.Hour, Idle: 2 * time.Minute}
		})
		defer c.Close()
		g := signIn(t, c.Authority, "alice")
		c.store.set(failing)
		idleEnd := g.Session.IdleExpiresAt()
		for time.Now().Before(idleEnd.Add(time.Minute)) {
			fresh, err := c.tryRefresh(g)
			if err != nil {
				wantErr(t, err, verify.ErrUnavailable) // never "expired": another node may know of later use
				if left := time.Until(idleEnd); left > 6*time.Second {
					t.Fatalf("refused %s before the idle end: %v", left, err)
				}
			} else if fresh.ExpiresAt.After(idleEnd) {
				t.Fatalf("lives %s beyond the idle end", fresh.ExpiresAt.Sub(idleEnd))
			}
			time.Sleep(5 * time.Second)
		}
	})
}

func TestDegradedBrowserPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openCutOff(t, nil, nil)
		defer c.Close()
		g := signIn(t, c.Authority, "alice")
		page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			claims, _ := verify.FromContext(r.Context())
			if claims.Degraded {
				w.Write([]byte("degraded"))
			}
		})
		c.store.set(failing)
		for _, tc := range []struct {
			name   string
			rules  []verify.Rule
			status int
		}{
			{"any", nil, 200}, {"young enough", []verify.Rule{verify.MaxTokenAge(time.Minute)}, 200},
			{"no degraded", []verify.Rule{verify.NoDegraded()}, 503}, {"live", []verify.Rule{verify.Live()}, 503},
			{"too old", []verify.Rule{verify.MaxTokenAge(time.Second)}, 503},
		} {
			time.Sleep(2 * time.Second)
			r := httptest.NewRequest(http.MethodGet, "https://app.example/", nil)
			r.AddCookie(g.Cookie())
			w := httptest.NewRecorder()
			c.Browser(tc.rules...)(page).ServeHTTP(w, r)
			if w.Code != tc.status || tc.status == 200 && w.Body.String() != "degraded" {
				t.Errorf("%s: %d %s", tc.name, w.Code, w.Body)
			}
		}
	})
}

// kidOf is the key that a token was signed with.
func kidOf(token string) string {
	header, _, _ := strings.Cut(token, ".")
	data, _ := base64.RawURLEncoding.DecodeString(header)
	var h struct{ Kid string }
	_ = json.Unmarshal(data, &h)
	return h.Kid
}
