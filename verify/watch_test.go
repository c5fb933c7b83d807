package verify

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil/internal/revoked"
)

// on is the context of a request with this token, as Require makes it.
func on(t *testing.T, v *Verifier, ctx context.Context, token string) context.Context {
	t.Helper()
	c, err := v.Check(ctx, token)
	if err != nil {
		t.Fatal(err)
	}
	return NewContext(ctx, c)
}

func realTime(c *Config, l *Local) {
	c.Clock = nil
	l.Revocations = revoked.NewTable(nil)
}

// An open stream ends with what opened it.
func TestSEC32WatchEndsWithTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, realTime)
		later := time.Now().Add(10 * time.Minute)
		for i, tc := range []struct {
			entry Revocation
			want  error
		}{
			{Revocation{Kind: RevokeSession, ID: "s", Until: later}, ErrTokenRevoked},
			{Revocation{Kind: RevokeToken, ID: "j", Until: later}, ErrTokenRevoked},
			{Revocation{Kind: RevokeSubject, ID: "u", RevokedBelow: 8, Until: later}, ErrTokenRevoked},
			{Revocation{Kind: RevokeSubject, ID: "u", StaleBelow: 8, Until: later}, ErrTokenStale},
			{Revocation{Kind: RevokeSubject, ID: "u", StaleBelow: 8, RevokedBelow: 8, Except: "s", Until: later}, ErrTokenStale},
			{Revocation{Kind: RevokeClient, ID: "c", RevokedBelow: 8, Until: later}, ErrTokenRevoked},
			{Revocation{Kind: RevokeKey, ID: "k1"}, ErrTokenRevoked},
			// What concerns somebody else, or an earlier epoch.
			{Revocation{Kind: RevokeSession, ID: "other", Until: later}, nil},
			{Revocation{Kind: RevokeSubject, ID: "u", RevokedBelow: 7, StaleBelow: 7, Until: later}, nil},
			{Revocation{Kind: RevokeClient, ID: "c", RevokedBelow: 7, Until: later}, nil},
			{Revocation{Kind: RevokeKey, ID: "k2"}, nil},
		} {
			n := fmt.Sprint(i)
			e := tc.entry
			if e.Kind != RevokeKey {
				e.ID += n
			}
			if e.Except != "" {
				e.Except += n
			}
			v := newLocal(t, func(c *Config, loc *Local) { realTime(c, loc); l.table = loc.Revocations })
			token := v.key.mint(t, goodClaims(time.Now()).with(claims{"sid": "s" + n, "jti": "j" + n, "sub": "u" + n, "client_id": "c" + n}))
			ctx, stop := Watch(on(t, v.Verifier, t.Context(), token))
			l.table.Apply(e)
			// It ends before Apply returns.
			if err := context.Cause(ctx); !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) || (ctx.Err() == nil) != (tc.want == nil) {
				t.Errorf("%v: %v", e, err)
			}
			stop()
			synctest.Wait()
			if n := v.Stats().Watches; n != 0 {
				t.Errorf("%d watches are left", n)
			}
			if tc.want != nil { // what is revoked already is not watched
				again, stop := Watch(NewContext(t.Context(), mustClaims(ctx)))
				if !errors.Is(context.Cause(again), tc.want) {
					t.Error(context.Cause(again))
				}
				stop()
			}
		}
	})
}

func mustClaims(ctx context.Context) *Claims {
	c, _ := FromContext(ctx)
	return c
}

func TestWatchEndsWithTheTokenUnlessRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, realTime)
		mint := func(more claims) string { return l.eddsa.mint(t, goodClaims(time.Now()).with(more)) }
		began := time.Now()
		ctx, stop := Watch(on(t, l.Verifier, t.Context(), mint(nil)))
		defer stop()
		child, cancel := context.WithCancel(ctx)
		defer cancel()
		<-child.Done()
		if took := time.Since(began); !errors.Is(context.Cause(child), ErrTokenExpired) || took != 60*time.Second+leeway {
			t.Error(context.Cause(child), took)
		}

		began = time.Now()
		ctx, stop = Watch(on(t, l.Verifier, t.Context(), mint(claims{"jti": "t0", "roles": []string{"admin"}})))
		defer stop()
		child, cancel = context.WithCancel(ctx)
		defer cancel()
		for i := range 5 {
			time.Sleep(50 * time.Second)
			if err := Renew(child, mint(claims{"jti": fmt.Sprint("t", i+1), "roles": []string{"admin"}}), Role("admin")); err != nil {
				t.Fatal(err)
			}
			if c, _ := FromContext(child); c.ID != fmt.Sprint("t", i+1) {
				t.Error("the claims are of", c.ID)
			}
		}
		for name, tc := range map[string]struct {
			token string
			want  error
		}{
			"another session": {mint(claims{"sid": "another", "roles": []string{"admin"}}), ErrTokenInvalid},
			"another user":    {mint(claims{"sub": "user-2", "roles": []string{"admin"}}), ErrTokenInvalid},
			"nonsense":        {"nonsense", ErrTokenInvalid},
			"expired":         {l.eddsa.mint(t, goodClaims(time.Now().Add(-time.Hour))), ErrTokenExpired},
			"role lost":       {mint(nil), ErrInsufficientScope},
		} {
			if err := Renew(ctx, tc.token, Role("admin")); !errors.Is(err, tc.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// An older token takes nothing away.
		if err := Renew(ctx, l.eddsa.mint(t, goodClaims(time.Now().Add(-30*time.Second)))); err != nil || mustClaims(ctx).ID != "t5" {
			t.Error(err, mustClaims(ctx).ID)
		}
		// The first token's revocation is nothing to the watch now; the last one's is.
		l.Verifier.revocations.Apply(Revocation{Kind: RevokeToken, ID: "t0", Until: time.Now().Add(time.Hour)})
		if ctx.Err() != nil {
			t.Error(context.Cause(ctx))
		}
		<-ctx.Done()
		if took := time.Since(began); took != 250*time.Second+60*time.Second+leeway || !errors.Is(context.Cause(ctx), ErrTokenExpired) {
			t.Error(took, context.Cause(ctx))
		}
		if err := Renew(t.Context(), mint(nil)); err == nil {
			t.Error("a context without a watch was renewed")
		}
		synctest.Wait()
		if n := l.Stats().Watches; n != 0 || len(l.watches.by) != 0 {
			t.Errorf("%d watches are left, %d names", n, len(l.watches.by))
		}
	})
}

func TestWatchWithoutAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := Watch(t.Context())
		if !errors.Is(context.Cause(ctx), ErrCredentialMissing) {
			t.Error(context.Cause(ctx))
		}
		stop()
		// Claims of a test.
		parent, cancel := context.WithCancelCause(t.Context())
		ctx, stop = Watch(NewContext(parent, &Claims{Subject: "u", ExpiresAt: time.Now().Add(time.Minute)}))
		if ctx.Err() != nil || Renew(ctx, "x") == nil {
			t.Error(ctx.Err())
		}
		why := errors.New("why")
		cancel(why)
		if context.Cause(ctx) != why {
			t.Error(context.Cause(ctx))
		}
		stop()
		ctx, stop = Watch(NewContext(t.Context(), &Claims{Subject: "u", ExpiresAt: time.Now().Add(time.Minute)}))
		defer stop()
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), ErrTokenExpired) {
			t.Error(context.Cause(ctx))
		}
		endless, stop := Watch(NewContext(t.Context(), &Claims{Subject: "u"}))
		time.Sleep(time.Hour)
		if endless.Err() != nil {
			t.Error(endless.Err())
		}
		stop()
	})
}

// Ten thousand connections take no goroutine each, and one revocation looks at
// its own only.
func TestWatchesTakeNoGoroutines(t *testing.T) {
	l := newLocal(t, realTime)
	before := runtime.NumGoroutine()
	first := mustClaims(on(t, l.Verifier, t.Context(), l.eddsa.mint(t, goodClaims(time.Now()))))
	var all []context.Context
	for i := range 10_000 {
		c := *first
		c.SessionID = fmt.Sprint("s", i%2500)
		ctx, stop := Watch(NewContext(t.Context(), &c))
		defer stop()
		all = append(all, ctx)
	}
	if n := runtime.NumGoroutine() - before; n > 100 {
		t.Errorf("%d goroutines more", n)
	}
	l.Verifier.revocations.Apply(Revocation{Kind: RevokeSession, ID: "s7", Until: time.Now().Add(time.Hour)})
	ended := 0
	for i, ctx := range all {
		if ctx.Err() != nil {
			ended++
			if i%2500 != 7 {
				t.Errorf("watch %d has ended", i)
			}
		}
	}
	if ended != 4 {
		t.Errorf("%d have ended", ended)
	}
}

// Revocations come while watches begin, are renewed and end: none is missed.
func TestWatchRaces(t *testing.T) {
	l := newLocal(t, realTime)
	later := time.Now().Add(time.Hour)
	var wg sync.WaitGroup
	for i := range 300 {
		sid := fmt.Sprint("s", i)
		token := func(j int) string {
			return l.eddsa.mint(t, goodClaims(time.Now()).with(claims{"sid": sid, "jti": fmt.Sprint(sid, "-", j)}))
		}
		ctx := on(t, l.Verifier, t.Context(), token(0))
		next := token(1)
		wg.Go(func() {
			ctx, stop := Watch(ctx)
			defer stop()
			_ = Renew(ctx, next) // may lose
			select {
			case <-ctx.Done():
				if !errors.Is(context.Cause(ctx), ErrTokenRevoked) {
					t.Error(context.Cause(ctx))
				}
			case <-time.After(20 * time.Second):
				t.Error("a revocation was missed")
			}
		})
		wg.Go(func() {
			l.Verifier.revocations.Apply(Revocation{Kind: RevokeSession, ID: sid, Until: later})
		})
		wg.Go(func() {
			_, stop := Watch(ctx)
			stop()
			stop()
		})
	}
	wg.Wait()
}
