package verify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil/internal/jws"
)

// A verifier that is cut off knows how stale it is, and each route keeps its bound.
func TestSEC38CutOffVerifierKnowsItsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		es := newKey(t, "k1", jws.ES256)
		a := newAuthority(es)
		var active atomic.Bool
		var asked atomic.Int64
		active.Store(true)
		a.introspect = answerLive(&active, &asked)
		v := follow(t, a, Config{})
		token := func() string {
			return es.mint(t, goodClaims(time.Now()).with(claims{"jti": fmt.Sprint(rand.Uint64()), "exp": time.Now().Unix() + 300}))
		}
		for range 50 {
			time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
			if age, ok := v.feedAge(); !ok || age > healthy {
				t.Fatal(age, ok)
			}
		}
		held := token()
		check(t, v, held, nil, MaxFeedAge(time.Second))
		if asked.Load() != 0 {
			t.Error("a fresh feed costs live checks")
		}

		// The feed is gone, the rest answers.
		a.change(func() {
			a.replace = map[string]http.HandlerFunc{"/v1/revocations": func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusBadGateway)
			}}
		})
		a.log.restart()
		cut := time.Now()
		time.Sleep(700 * time.Millisecond)
		check(t, v, held, nil, MaxFeedAge(time.Second))
		if asked.Load() != 0 {
			t.Error("asked too early")
		}
		time.Sleep(400 * time.Millisecond)
		if age, ok := v.feedAge(); !ok || age < time.Since(cut) || age > time.Since(cut)+healthy {
			t.Error(age, ok)
		}
		// Many requests, one question, until the answer itself is too old.
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { check(t, v, held, nil, MaxFeedAge(time.Second)) })
		}
		wg.Wait()
		time.Sleep(time.Second)
		check(t, v, held, nil, MaxFeedAge(time.Second))
		if n := asked.Load(); n != 1 {
			t.Errorf("%d questions", n)
		}
		active.Store(false) // ended, which this verifier does not hear
		check(t, v, held, nil, MaxFeedAge(time.Second))
		check(t, v, held, nil, MaxFeedAge(time.Minute))
		time.Sleep(time.Millisecond)
		check(t, v, held, ErrTokenRevoked, MaxFeedAge(time.Second))
		check(t, v, held, nil)
		active.Store(true) // a refusal stands
		time.Sleep(time.Minute)
		check(t, v, held, ErrTokenRevoked, MaxFeedAge(time.Second))
		check(t, v, token(), nil, MaxFeedAge(time.Second))

		// Nothing answers: 503, never a guess, and the default route goes on.
		a.change(func() { a.down = true })
		last := token()
		check(t, v, last, ErrUnavailable, MaxFeedAge(time.Second))
		check(t, v, last, nil)
		a.change(func() { a.down, a.replace = false, nil })
		time.Sleep(longestFeedRetry + time.Second)
		check(t, v, last, nil, MaxFeedAge(time.Second))
		if s := v.Stats(); !s.Connected || s.FeedAge > healthy || s.FeedChecks == 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestLiveChecksForAnOldFeedAreCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		l := newLocal(t, func(c *Config, l *Local) {
			c.Clock = nil
			l.FeedAge = func() (time.Duration, bool) { return time.Hour, true }
			l.Live = func(context.Context, *Claims) error {
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				time.Sleep(time.Second)
				now.Add(-1)
				return nil
			}
		})
		route := l.Checker(MaxFeedAge(time.Minute))
		var good, busy atomic.Int64
		var wg sync.WaitGroup
		for i := range 3 * maxFeedChecks {
			token := l.eddsa.mint(t, goodClaims(time.Now()).with(claims{"jti": fmt.Sprint(i)}))
			wg.Go(func() {
				switch _, err := route(t.Context(), token); {
				case err == nil:
					good.Add(1)
				case errors.Is(err, ErrUnavailable):
					busy.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most.Load() != maxFeedChecks || good.Load() < 2*maxFeedChecks || good.Load()+busy.Load() != 3*maxFeedChecks {
			t.Errorf("%d at a time, %d answered, %d refused", most.Load(), good.Load(), busy.Load())
		}
		for i := range 2 * maxFeedAnswers {
			l.checks.keep(fmt.Sprint("more", i), feedAnswer{expires: time.Now().Unix() + 60}, time.Now().Unix())
		}
		if n := len(l.checks.answers); n > maxFeedAnswers {
			t.Errorf("%d answers kept", n)
		}
	})
}

func TestMaxFeedAgeInProcess(t *testing.T) {
	age := time.Second
	l := newLocal(t, func(_ *Config, l *Local) { l.FeedAge = func() (time.Duration, bool) { return age, age > 0 } })
	token := l.key.mint(t, goodClaims(start))
	check(t, l.Verifier, token, nil, MaxFeedAge(time.Second))
	check(t, l.Verifier, token, ErrUnavailable, MaxFeedAge(time.Second), MaxFeedAge(time.Second-1))
	age = 0
	check(t, l.Verifier, token, ErrUnavailable, MaxFeedAge(time.Hour))
	deaf := newLocal(t, nil)
	defer func() {
		if recover() == nil {
			t.Error("a verifier that hears nothing built a route with MaxFeedAge")
		}
	}()
	deaf.Require(MaxFeedAge(time.Second))
}

// The node is reached, but has lost its store: what it says is old.
func TestFeedAgeCountsBackToTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(newKey(t, "k1", jws.ES256))
		v := follow(t, a, Config{})
		a.log.freeze(true)
		time.Sleep(5 * time.Second)
		if age, ok := v.feedAge(); !ok || age < 5*time.Second || age > 5*time.Second+healthy {
			t.Error(age, ok)
		}
		if s := v.Stats(); !s.Connected || s.Reconnects != 0 {
			t.Errorf("%+v", s)
		}
		a.log.freeze(false)
		time.Sleep(200 * time.Millisecond)
		if age, ok := v.feedAge(); !ok || age > healthy {
			t.Error(age, ok)
		}
	})
}

// Frames that are held back are old, however regularly they come.
func TestFeedHeldBackCountsAsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(newKey(t, "k1", jws.ES256))
		proxy := newSlowProxy(t, a)
		v := follow(t, a, Config{HTTPClient: &http.Client{Transport: proxy}})
		time.Sleep(2 * time.Second)
		for _, late := range []time.Duration{0, 400 * time.Millisecond, 2 * time.Second, 20 * time.Millisecond} {
			proxy.late.Store(int64(late))
			time.Sleep(20 * time.Second)
			if age, ok := v.feedAge(); !ok || age < late || age > late+healthy {
				t.Errorf("%v late: %v, %v", late, age, ok)
			}
		}
	})
}

func TestSuspendedMachine(t *testing.T) {
	for name, jump := range map[string]time.Duration{"suspended": time.Minute, "clock set back": -time.Hour, "clock set forth": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority(newKey(t, "k1", jws.ES256))
				v := follow(t, a, Config{})
				f := v.keys.(*remoteKeys).feed
				if _, ok := v.feedAge(); !ok {
					t.Fatal("not known")
				}
				var ahead atomic.Int64
				read := f.age.read
				v.Close()
				f.age.read = func() (time.Duration, time.Time) {
					mono, wall := read()
					return mono, wall.Add(time.Duration(ahead.Load()))
				}
				f.ctx, f.cancel = context.WithCancel(t.Context())
				f.start()
				time.Sleep(time.Second)
				if age, ok := v.feedAge(); !ok || age > healthy {
					t.Fatal(age, ok)
				}
				ahead.Store(int64(900 * time.Millisecond)) // too little to tell
				time.Sleep(time.Second)
				reconnects := v.Stats().Reconnects
				ahead.Store(int64(jump))
				if _, ok := v.feedAge(); ok { // at the decision, not some time later
					t.Error("a suspended machine takes its knowledge for fresh")
				}
				time.Sleep(time.Second)
				if age, ok := v.feedAge(); !ok || age > healthy || v.Stats().Reconnects != reconnects+1 {
					t.Error(age, ok, v.Stats().Reconnects, reconnects)
				}
			})
		})
	}
}

// The age is an upper bound whatever the network and the clocks do, and a close
// one when they behave.
func TestFeedAgeIsABound(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	ms := func(most int) time.Duration { return time.Duration(r.Int64N(int64(most) * int64(time.Millisecond))) }
	for range 300 {
		// Time as nobody's clock shows it; two clocks that are hours apart and
		// drift, at most as far as we allow for.
		at := time.Duration(0)
		ahead := float64(r.IntN(7200)-3600) + 1763770000
		rate := 1 + (r.Float64()*2-1)*clockDrift/1e6
		theirs := func(at time.Duration) float64 { return ahead + at.Seconds()*rate }
		a := newFeedAge()
		a.read = func() (time.Duration, time.Time) { return time.Hour + at, start.Add(at) }
		a.skew.Store(start.UnixNano() - int64(time.Hour))
		slow := 1 + r.IntN(400)
		a.begin()
		read := at - time.Second
		at += ms(slow)
		for step := range 200 {
			read = max(read, at-ms(50)) // the node reads its store
			beat := theirs(at)
			age := time.Duration((beat - theirs(read)) * 1e9).Round(time.Millisecond)
			if age < time.Duration((beat-theirs(read))*1e9) {
				age += time.Millisecond
			}
			at += ms(slow) // under way
			if !a.beat("n", beat, age) {
				t.Fatal("a beat was taken for impossible")
			}
			at += ms(100)
			got, ok := a.age()
			if !ok || got < at-read {
				t.Fatalf("step %d: the store was read %v ago, the age says %v", step, at-read, got)
			}
			if got > at-read+time.Duration(slow)*time.Millisecond+50*time.Millisecond {
				t.Fatalf("step %d: the store was read %v ago, the age says %v", step, at-read, got)
			}
			if step%20 == 0 {
				t0 := at
				at += ms(slow)
				now := theirs(at)
				at += ms(slow)
				if !a.repin(time.Hour+t0, time.Hour+at, "n", now) || a.repin(time.Hour+t0, time.Hour+at, "other", now+100) {
					t.Fatal("repin")
				}
				at += time.Duration(r.Int64N(int64(pinEvery)))
			}
		}
	}
}
