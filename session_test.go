package counterfoil_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/storetest/engine"
	"github.com/counterfoil/counterfoil/verify"
)

func TestOneSignInGivesBothCredentials(t *testing.T) {
	a := authority(t)
	g := signIn(t, a, "alice")
	claims, err := check(t, a, g.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if claims.Subject != "alice" || claims.SessionID != g.Session.ID || claims.Audience != "app" ||
		claims.ClientID != "default" || claims.Methods[0] != "pwd" || claims.AuthTime.IsZero() {
		t.Errorf("claims: %+v", claims)
	}
	if len(g.AccessToken) > 560 {
		t.Errorf("the default access token has %d characters, 560 is the budget", len(g.AccessToken))
	}
	fresh := refresh(t, a, g)
	again, err := check(t, a, fresh.AccessToken)
	if err != nil || again.SessionID != claims.SessionID || again.ID == claims.ID {
		t.Errorf("refreshed: %+v, %v", again, err)
	}
	if !fresh.SessionToken.IsZero() {
		t.Error("a refresh hands out the session token again")
	}
	if fresh.RefreshAfter <= 0 || fresh.RefreshAfter >= fresh.ExpiresIn {
		t.Errorf("refresh after %s of %s", fresh.RefreshAfter, fresh.ExpiresIn)
	}
}

func TestSEC05SidGrantsNothing(t *testing.T) {
	a := authority(t)
	g := signIn(t, a, "alice")
	for _, guess := range []string{g.Session.ID, "cf_st_" + g.Session.ID, ""} {
		_, err := a.Refresh(t.Context(), guess, counterfoil.RefreshRequest{})
		wantErr(t, err, counterfoil.ErrSessionUnknown)
	}
	// A well-formed token with this sid and another secret learns nothing, not even that it was revoked.
	if err := a.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut); err != nil {
		t.Fatal(err)
	}
	forged, _ := a.NewSessionSecret(g.Session.ID)
	_, err := a.Refresh(t.Context(), forged.Reveal(), counterfoil.RefreshRequest{})
	var ended *counterfoil.EndedError
	if !errors.As(err, &ended) || ended.Reason != "" || ended.SessionID != "" || !errors.Is(err, counterfoil.ErrSessionUnknown) {
		t.Errorf("the wrong secret was told %#v", err)
	}
}

func TestIdleExpirySlidesWithActivityOnly(t *testing.T) { // SEC-13
	synctest.Test(t, func(t *testing.T) {
		a := open(t, nil, func(c *counterfoil.Config) { c.Lifetimes = counterfoil.Business })
		defer a.Close()
		active, quiet := signIn(t, a, "alice"), signIn(t, a, "bob")
		for range 6 { // three hours, background refresh every 30 min
			time.Sleep(30 * time.Minute)
			refresh(t, a, active)
			_, err := a.Refresh(t.Context(), quiet.SessionToken.Reveal(), counterfoil.RefreshRequest{Inactive: true})
			if since := time.Since(quiet.Session.CreatedAt); since < time.Hour && err != nil {
				t.Fatalf("after %s: %v", since, err)
			} else if since >= time.Hour {
				wantErr(t, err, counterfoil.ErrSessionExpired)
			}
		}
	})
}

func TestAbsoluteExpiryIsNotExtendedByUse(t *testing.T) { // SEC-14
	synctest.Test(t, func(t *testing.T) {
		a := open(t, nil, func(c *counterfoil.Config) { c.Lifetimes = counterfoil.Strict })
		defer a.Close()
		g := signIn(t, a, "alice")
		for range 71 {
			time.Sleep(10 * time.Minute)
			refresh(t, a, g)
		}
		sleepTo(g.Session.ExpiresAt)
		wantEnded(t, a, g, counterfoil.ErrSessionExpired, "")
	})
}

func TestDurationPerSignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := authority(t)
		defer a.Close()
		g, err := a.StartSession(t.Context(), counterfoil.SignIn{Subject: "alice", Absolute: 10 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Minute - time.Second)
		refreshErr := func() error {
			_, err := a.Refresh(t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{})
			return err
		}
		if g.Cookie().MaxAge != 600 {
			t.Errorf("Max-Age %d", g.Cookie().MaxAge)
		}
		time.Sleep(2 * time.Second)
		wantErr(t, refreshErr(), counterfoil.ErrSessionExpired)
	})
}

func TestSEC15TokenNeverOutlivesItsSession(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	synctest.Test(t, func(t *testing.T) {
		a := authority(t)
		defer a.Close()
		for range 200 {
			absolute := time.Minute + time.Duration(rng.Int64N(int64(3*time.Minute)))
			g, err := a.StartSession(t.Context(), counterfoil.SignIn{Subject: "alice", Absolute: absolute, Idle: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			for {
				time.Sleep(time.Duration(rng.Int64N(int64(20 * time.Second))))
				active := rng.IntN(2) == 0
				fresh, err := a.Refresh(t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{Inactive: !active})
				if errors.Is(err, counterfoil.ErrSessionExpired) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				s, err := a.Session(t.Context(), g.Session.ID)
				if err != nil {
					t.Fatal(err)
				}
				limit := s.ExpiresAt
				if idle := fresh.Session.IdleExpiresAt(); idle.Before(limit) {
					limit = idle
				}
				if fresh.ExpiresAt.After(limit) || fresh.ExpiresAt.Sub(fresh.ServerTime) > time.Minute {
					t.Fatalf("token until %s, session until %s (now %s)", fresh.ExpiresAt, limit, fresh.ServerTime)
				}
			}
		}
	})
}

// writes counts what reaches the store.
type countingSessions struct {
	counterfoil.SessionStore
	mu      sync.Mutex
	touched map[string]int
}

type countingStore struct {
	counterfoil.Store
	sessions *countingSessions
}

func (s countingStore) Sessions() counterfoil.SessionStore { return s.sessions }

func (s *countingSessions) Touch(ctx context.Context, touches []counterfoil.Touch) error {
	s.mu.Lock()
	for _, touch := range touches {
		s.touched[touch.ID]++
	}
	s.mu.Unlock()
	return s.SessionStore.Touch(ctx, touches)
}

func TestTouchesAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newStore(t)
		counting := &countingSessions{SessionStore: mem.Sessions(), touched: map[string]int{}}
		a := open(t, countingStore{mem, counting}, nil)
		defer a.Close()
		g := signIn(t, a, "alice")
		for range 360 { // an hour of refreshes, one every ten seconds
			time.Sleep(10 * time.Second)
			refresh(t, a, g)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := counting.touched[g.Session.ID]; n < 10 || n > 12 {
			t.Errorf("%d writes in an hour of 360 refreshes, want about one each five minutes", n)
		}
		s, err := a.Session(t.Context(), g.Session.ID)
		if err != nil || time.Since(s.LastActiveAt) > 5*time.Minute+2*time.Second {
			t.Errorf("last active %s ago, %v", time.Since(s.LastActiveAt), err)
		}
	})
}

func TestCloseWritesWaitingTouches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := engine.Open(t, time.Now)
		a := open(t, db.Store(t), nil)
		g := signIn(t, a, "alice")
		time.Sleep(time.Hour)
		refresh(t, a, g)
		used := time.Now()
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		store := db.Store(t)
		if err := store.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		snap, err := store.Sessions().Snapshot(context.Background(), g.Session.ID)
		if err != nil || !snap.Session.LastActiveAt.Equal(used.UTC()) {
			t.Errorf("last active %s, want %s (%v)", snap.Session.LastActiveAt, used, err)
		}
	})
}

func TestThousandParallelRefreshes(t *testing.T) {
	a := authority(t)
	g := signIn(t, a, "alice")
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			fresh, err := a.Refresh(t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := check(t, a, fresh.AccessToken); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	refresh(t, a, g)
}

func TestEndedSessionsStayForAuditThenGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, nil, func(c *counterfoil.Config) { c.Retention = 24 * time.Hour })
		defer a.Close()
		gone, kept := signIn(t, a, "alice"), signIn(t, a, "alice")
		if err := a.RevokeSession(t.Context(), gone.Session.ID, counterfoil.SignedOut, counterfoil.By("user")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(23 * time.Hour)
		s, err := a.Session(t.Context(), gone.Session.ID)
		if err != nil || s.End == nil || s.End.Reason != counterfoil.SignedOut || s.End.Actor != "user" {
			t.Fatalf("kept for audit: %+v, %v", s.End, err)
		}
		time.Sleep(2 * time.Hour)
		_, err = a.Session(t.Context(), gone.Session.ID)
		wantErr(t, err, counterfoil.ErrNotFound)
		refresh(t, a, kept)
	})
}

func TestSEC124DeviceIsCleaned(t *testing.T) {
	a := authority(t)
	g, err := a.StartSession(t.Context(), counterfoil.SignIn{Subject: "alice", Device: &counterfoil.Device{
		UserAgent: "evil\r\n\x1b[31mred" + strings.Repeat("ä", 300), IP: "192.0.2.1\n",
	}})
	if err != nil {
		t.Fatal(err)
	}
	d := g.Session.Device
	if strings.ContainsAny(d.UserAgent+d.IP, "\r\n\x1b") || len(d.UserAgent) > 256 || !strings.HasPrefix(d.UserAgent, "evil[31mredä") {
		t.Errorf("%q %q", d.UserAgent, d.IP)
	}
}

func TestBadSignInsNameTheField(t *testing.T) {
	a := authority(t)
	for _, tt := range []struct {
		field string
		in    counterfoil.SignIn
	}{
		{"subject", counterfoil.SignIn{}},
		{"subject", counterfoil.SignIn{Subject: "a\x00b"}},
		{"subject", counterfoil.SignIn{Subject: strings.Repeat("x", 256)}},
		{"epoch", counterfoil.SignIn{Subject: "a", Epoch: -1}},
		{"client_id", counterfoil.SignIn{Subject: "a", ClientID: "other"}},
		{"audience", counterfoil.SignIn{Subject: "a", Audience: "nobody"}},
		{"max_age", counterfoil.SignIn{Subject: "a", Absolute: time.Second}},
		{"max_age", counterfoil.SignIn{Subject: "a", Absolute: 500 * 24 * time.Hour}},
		{"auth_time", counterfoil.SignIn{Subject: "a", AuthTime: time.Now().Add(time.Hour)}},
		{"amr[0]", counterfoil.SignIn{Subject: "a", Methods: []string{"a b"}}},
		{"roles[0]", counterfoil.SignIn{Subject: "a", Roles: []string{""}}},
		{"scope[1]", counterfoil.SignIn{Subject: "a", Scope: []string{"read", "a b"}}},
		{"claims", counterfoil.SignIn{Subject: "a", Extra: map[string]any{"sub": "evil"}}},
		{"claims", counterfoil.SignIn{Subject: "a", Extra: map[string]any{"SUB": "evil"}}}, // SEC-61
		{"claims", counterfoil.SignIn{Subject: "a", Extra: map[string]any{"\u017Fub": "evil"}}},
		{"claims", counterfoil.SignIn{Subject: "a", Extra: map[string]any{"plan": 1, "Plan": 2}}}, // SEC-60
		{"claims", counterfoil.SignIn{Subject: "a", Extra: map[string]any{"big": strings.Repeat("x", 2000)}}},
		{"claims.f", counterfoil.SignIn{Subject: "a", Extra: map[string]any{"f": func() {}}}},
	} {
		t.Run(tt.field, func(t *testing.T) {
			_, err := a.StartSession(t.Context(), tt.in)
			var field *counterfoil.FieldError
			if !errors.As(err, &field) || field.Field != tt.field {
				t.Errorf("got %v, want an error of field %s", err, tt.field)
			}
		})
	}
	sessions, _, err := a.Sessions(t.Context(), counterfoil.ListQuery{})
	if err != nil || len(sessions) != 0 {
		t.Errorf("%d sessions were left behind, %v", len(sessions), err)
	}
}

func TestClaimsHookRunsAtEachMint(t *testing.T) {
	role, fail := "reader", error(nil)
	a := open(t, nil, func(c *counterfoil.Config) {
		c.Claims = func(_ context.Context, s counterfoil.Session) (counterfoil.Claims, error) {
			return counterfoil.Claims{Roles: []string{role}, Scope: []string{"a:read", "b:write"}, Extra: map[string]any{"plan": "pro", "n": 3}}, fail
		}
	})
	g := signIn(t, a, "alice")
	role = "admin"
	fresh := refresh(t, a, g)
	old, _ := check(t, a, g.AccessToken)
	c, err := check(t, a, fresh.AccessToken, verify.Role("admin"), verify.Scope("a:read"))
	if err != nil || !old.HasRole("reader") {
		t.Fatalf("%v, %+v", err, old)
	}
	var own struct {
		Plan string `json:"plan"`
		N    int    `json:"n"`
	}
	if err := c.Decode(&own); err != nil || own.Plan != "pro" || own.N != 3 {
		t.Errorf("%+v, %v", own, err)
	}
	// A hook that fails keeps the client signed in and leaves no session behind.
	fail = errors.New("directory down")
	_, err = a.Refresh(t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{})
	wantErr(t, err, verify.ErrUnavailable)
	_, err = a.StartSession(t.Context(), counterfoil.SignIn{Subject: "bob"})
	wantErr(t, err, verify.ErrUnavailable)
	sessions, _, _ := a.Sessions(t.Context(), counterfoil.ListQuery{Subject: "bob"})
	for _, s := range sessions {
		if s.Status(time.Now()) == counterfoil.StatusActive {
			t.Error("a sign-in that failed left an active session")
		}
	}
	fail = nil
	refresh(t, a, g)
}

func TestSessionsShareTheirSubjectsShard(t *testing.T) {
	a := authority(t)
	x, y := signIn(t, a, "alice"), signIn(t, a, "alice")
	if len(x.Session.ID) != 24 || x.Session.ID[:2] != y.Session.ID[:2] {
		t.Errorf("%s %s", x.Session.ID, y.Session.ID)
	}
}

func TestListPages(t *testing.T) {
	a := authority(t)
	for i := range 7 {
		signIn(t, a, fmt.Sprintf("u%d", i%2))
	}
	seen, after := map[string]bool{}, ""
	for {
		page, next, err := a.Sessions(t.Context(), counterfoil.ListQuery{Subject: "u0", Limit: 3, After: after})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page {
			seen[s.ID] = true
		}
		if after = next; next == "" {
			break
		}
	}
	if len(seen) != 4 {
		t.Errorf("%d sessions of u0, want 4", len(seen))
	}
	_, _, err := a.Sessions(t.Context(), counterfoil.ListQuery{After: "garbage"})
	var field *counterfoil.FieldError
	if !errors.As(err, &field) || field.Field != "after" {
		t.Errorf("garbage cursor: %v", err)
	}
}
