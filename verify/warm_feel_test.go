package verify

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// SEC-121: what was revoked is refused though its token is remembered, with
// the same answer as one that was never seen; nothing else is forgotten.
func TestSEC121WarmTokensFeelRevocations(t *testing.T) {
	for name, tc := range map[string]struct {
		entry revoked.Entry
		want  error
	}{
		"session": {revoked.Entry{Kind: revoked.Session, ID: "4fzyo82mvyr9z0KfJ2W8QhpD"}, ErrTokenRevoked},
		"token":   {revoked.Entry{Kind: revoked.Token, ID: "t1"}, ErrTokenRevoked},
		"client":  {revoked.Entry{Kind: revoked.Client, ID: "default", RevokedBelow: 8}, ErrTokenRevoked},
		"subject": {revoked.Entry{Kind: revoked.Subject, ID: "user-1", StaleBelow: 8, RevokedBelow: 8}, ErrTokenRevoked},
		"stale":   {revoked.Entry{Kind: revoked.Subject, ID: "user-1", StaleBelow: 8}, ErrTokenStale},
		"kept":    {revoked.Entry{Kind: revoked.Subject, ID: "user-1", StaleBelow: 8, RevokedBelow: 8, Except: "4fzyo82mvyr9z0KfJ2W8QhpD"}, ErrTokenStale},
		"key":     {revoked.Entry{Kind: revoked.Key, ID: "k1"}, ErrTokenInvalid},

		"other session": {revoked.Entry{Kind: revoked.Session, ID: "another"}, nil},
		"other token":   {revoked.Entry{Kind: revoked.Token, ID: "t2"}, nil},
		"earlier epoch": {revoked.Entry{Kind: revoked.Subject, ID: "user-1", StaleBelow: 7, RevokedBelow: 7}, nil},
		"other key":     {revoked.Entry{Kind: revoked.Key, ID: "k2"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLocal(t, nil)
			token := l.key.mint(t, goodClaims(start))
			first, _ := l.checkWarm(t, token)
			tc.entry.Until = start.Add(time.Hour)
			l.table.Apply(tc.entry)
			check(t, l.Verifier, token, tc.want)
			again, err := l.Check(t.Context(), token)
			if tc.want == nil && (again != first || err != nil) {
				t.Errorf("forgotten: %v", err)
			}
			if want := map[bool]int{true: 1}[tc.want == nil]; l.warm.remembered(t) != want {
				t.Errorf("want %d remembered", want)
			}
		})
	}
}

func TestWarmTokensFeelKeyChanges(t *testing.T) {
	var mu sync.Mutex
	keys, longest := map[string]*jws.PublicKey{}, 5*time.Minute
	l := newLocal(t, func(_ *Config, loc *Local) {
		loc.Key = func(kid string) (*jws.PublicKey, bool) {
			mu.Lock()
			defer mu.Unlock()
			return keys[kid], keys[kid] != nil
		}
		loc.MaxTokenLifetime = func() time.Duration { mu.Lock(); defer mu.Unlock(); return longest }
	})
	change := func(f func()) {
		mu.Lock()
		f()
		mu.Unlock()
		l.table.Advance()
	}
	good := map[string]*jws.PublicKey{"k1": l.key.public, "k2": l.eddsa.public}
	tokens := []string{l.key.mint(t, goodClaims(start)), l.eddsa.mint(t, goodClaims(start))}
	for name, tc := range map[string]struct {
		change func()
		want   error
		warm   bool
	}{
		"nothing":      {func() {}, nil, true},
		"gone":         {func() { keys = map[string]*jws.PublicKey{} }, ErrTokenInvalid, false},
		"another key":  {func() { keys = map[string]*jws.PublicKey{"k1": newKey(t, "k1", jws.ES256).public} }, ErrTokenInvalid, false},
		"another alg":  {func() { keys = map[string]*jws.PublicKey{"k1": newKey(t, "k1", jws.EdDSA).public} }, ErrTokenInvalid, false},
		"shorter life": {func() { longest = time.Second }, ErrTokenInvalid, false},
		"fetched anew": {func() {
			for kid, k := range good {
				again, err := jws.NewPublicKey(kid, k.Alg(), k.Public())
				if err != nil {
					t.Fatal(err)
				}
				keys[kid] = again
			}
		}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			change(func() { keys, longest = maps.Clone(good), 5*time.Minute })
			for _, token := range tokens {
				l.checkWarm(t, token)
			}
			change(tc.change)
			for _, token := range tokens {
				if warm := l.recall(token) != nil; warm != tc.warm {
					t.Errorf("remembered %v", warm)
				}
				check(t, l.Verifier, token, tc.want)
			}
		})
	}
}

// A key set that is too old serves no remembered token either, and one that is
// fetched anew forgets none.
func TestWarmTokensAndTheAgeOfKeys(t *testing.T) {
	clock := &fakeClock{now: start}
	key := newKey(t, "k1", jws.EdDSA)
	a := newAuthority(key)
	v := open(t, Config{Authority: a.serve(t).URL, Clock: clock.Now, MaxKeyAge: time.Minute})
	token := key.mint(t, goodClaims(start).with(claims{"exp": start.Unix() + 300}))
	check(t, v, token, nil)
	if v.recall(token) == nil {
		t.Fatal("not remembered")
	}
	if _, err := v.keys.(*remoteKeys).load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v.recall(token) == nil {
		t.Error("forgotten for keys that are the same")
	}
	both := []*signingKey{newKey(t, "k1", jws.EdDSA), newKey(t, "k2", jws.EdDSA)}
	for _, keys := range [][]*signingKey{both[:1], both[1:], {key}} {
		a.change(func() { a.keys = keys })
		if _, err := v.keys.(*remoteKeys).load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if v.recall(token) != nil {
			t.Error("remembered though its key is gone")
		}
	}
	check(t, v, token, nil)
	clock.set(start.Add(time.Minute - 1))
	check(t, v, token, nil)
	clock.set(start.Add(time.Minute + 1))
	if v.recall(token) != nil {
		t.Error("remembered beyond the age of the keys")
	}
	check(t, v, token, ErrUnavailable)

	other := newKey(t, "k3", jws.EdDSA)
	a.change(func() { a.keys, a.version = []*signingKey{other}, 2 })
	if _, err := v.keys.(*remoteKeys).load(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(t, v, token, ErrTokenInvalid)
}

// Whatever is revoked while a token is verified, or while a remembered one is
// asked about again, is felt by the next request. The key is looked up in the
// middle of both: there the test steps in.
func TestSEC121NoLateEntryHidesARevocation(t *testing.T) {
	until := start.Add(time.Hour)
	for name, entry := range map[string]revoked.Entry{
		"key":     {Kind: revoked.Key, ID: "k1"},
		"session": {Kind: revoked.Session, ID: "4fzyo82mvyr9z0KfJ2W8QhpD", Until: until},
		"subject": {Kind: revoked.Subject, ID: "user-1", StaleBelow: 8, RevokedBelow: 8, Until: until},
	} {
		t.Run(name, func(t *testing.T) {
			var step func()
			l := newLocal(t, func(_ *Config, loc *Local) {
				find := loc.Key
				loc.Key = func(kid string) (*jws.PublicKey, bool) {
					k, ok := find(kid)
					if f := step; f != nil {
						step = nil
						f()
					}
					return k, ok
				}
			})
			token := l.key.mint(t, goodClaims(start))
			refused := func() {
				t.Helper()
				for range 2 {
					if _, err := l.Check(t.Context(), token); !errors.Is(err, ErrUnauthenticated) {
						t.Errorf("accepted: %v", err)
					}
				}
			}
			fresh := func() {
				l.table = revoked.NewTable(l.clock.Now)
				l.revocations = l.table
				l.warm = newWarmTable(defaultCacheTokens, false)
			}

			t.Run("while verified", func(t *testing.T) {
				fresh()
				step = func() { l.table.Apply(entry) }
				_, _ = l.Check(t.Context(), token) // it may be either side of the revocation
				if step != nil {
					t.Fatal("the key was not looked up")
				}
				refused()
			})
			t.Run("before it is remembered", func(t *testing.T) {
				fresh()
				version := l.table.Version()
				m, err := jws.Parse(token)
				if err != nil {
					t.Fatal(err)
				}
				c, err := parseClaims(m.Payload)
				if err != nil {
					t.Fatal(err)
				}
				l.table.Apply(entry)
				l.remember(token, c, knownKey{l.key.public, time.Hour, time.Hour}, version, start.UnixNano())
				refused()
			})
			t.Run("while asked about again", func(t *testing.T) {
				fresh()
				l.checkWarm(t, token)
				l.table.Advance()
				step = func() { l.table.Apply(entry) }
				_, _ = l.Check(t.Context(), token)
				if step != nil {
					t.Fatal("the key was not looked up")
				}
				refused()
			})
			t.Run("key gone while verified", func(t *testing.T) {
				fresh()
				find := l.keys
				step = func() {
					l.keys = localKeys{Local{Key: func(string) (*jws.PublicKey, bool) { return nil, false }}}
					l.table.Advance()
				}
				_, _ = l.Check(t.Context(), token)
				refused()
				l.keys = find
			})
		})
	}
}

// Many check while sessions, subjects and keys are revoked and tokens come and
// go: what was revoked before a check began is never accepted, and the table
// keeps its books.
func TestSEC121RevokedIsRevokedUnderLoad(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	const sessions, checkers, revocations = 400, 4, 300
	l := newLocal(t, func(c *Config, _ *Local) {
		c.CacheTokens = sessions / 2                // some are pushed out all the time
		c.Clock = func() time.Time { return start } // without a lock to queue for
	})
	var tokens [sessions]string
	var gone [sessions]atomic.Bool
	for i := range tokens {
		tokens[i] = l.eddsa.mint(t, goodClaims(start).with(claims{"sid": fmt.Sprint("s", i), "sub": fmt.Sprint("u", i), "jti": fmt.Sprint("j", i)}))
	}
	checkOne := func(i int) {
		before := gone[i].Load()
		c, err := l.Check(t.Context(), tokens[i])
		switch {
		case err == nil && before:
			t.Errorf("session %d was revoked before the check", i)
		case err == nil && c.SessionID != fmt.Sprint("s", i):
			t.Errorf("asked about s%d, got the claims of %s", i, c.SessionID)
		case err != nil && !errors.Is(err, ErrTokenRevoked):
			t.Errorf("session %d: %v", i, err)
		}
	}
	var running sync.WaitGroup
	var stop atomic.Bool
	for n := range checkers {
		running.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(n)))
			for !stop.Load() && !t.Failed() {
				checkOne(min(r.IntN(sessions), r.IntN(sessions))) // some are hot
			}
		})
	}
	r := rand.New(rand.NewPCG(seed, 99))
	for n, i := range r.Perm(sessions)[:revocations] {
		e := revoked.Entry{Kind: revoked.Session, ID: fmt.Sprint("s", i), Until: start.Add(time.Hour)}
		switch n % 3 {
		case 1:
			e = revoked.Entry{Kind: revoked.Token, ID: fmt.Sprint("j", i), Until: start.Add(time.Hour)}
		case 2:
			e = revoked.Entry{Kind: revoked.Subject, ID: fmt.Sprint("u", i), RevokedBelow: 8, Until: start.Add(time.Hour)}
		}
		l.table.Apply(e)
		gone[i].Store(true)
		if n%10 == 0 {
			l.table.Advance()
		}
		checkOne(i)
		checkOne(r.IntN(sessions))
	}
	stop.Store(true)
	running.Wait()
	l.warm.remembered(t)
}
