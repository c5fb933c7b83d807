package verify

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/jws"
)

// SEC-53, SEC-33: only the exact text of a verified token is remembered, and
// what nobody signed neither comes in nor pushes others out.
func TestOnlyVerifiedTokensAreRemembered(t *testing.T) {
	l := newLocal(t, func(c *Config, _ *Local) { c.CacheTokens = 50 })
	var good []string
	for i := range 50 {
		good = append(good, l.eddsa.mint(t, goodClaims(start).with(claims{"jti": fmt.Sprint("t", i)})))
		l.checkWarm(t, good[i])
	}
	dot := strings.LastIndexByte(good[0], '.')
	forgeries := []string{
		// Of the same end as a good one, so that set and tag and hash are the same.
		"A" + good[0][1:],
		good[1][:dot] + good[0][dot:],
		good[0][:dot] + good[1][dot:],
		good[0][1:],
		good[0][len(good[0])-tailLength:],
		good[0] + "A",
		strings.Replace(good[0], ".", "..", 1),
		"",
	}
	stranger := newKey(t, "k2", jws.EdDSA)
	for range 500 {
		forgeries = append(forgeries, good[0][:dot+1]+rand64(86))
	}
	for range 20 {
		forgeries = append(forgeries, stranger.mint(t, goodClaims(start)))
	}
	for _, forged := range forgeries {
		for range 2 {
			if c, err := l.Check(t.Context(), forged); err == nil {
				t.Fatalf("%q gave %+v", forged, c)
			}
		}
	}
	for _, token := range []string{
		l.key.mint(t, goodClaims(start).with(claims{"aud": "other"})),
		l.key.mint(t, goodClaims(start).with(claims{"exp": start.Unix() - 6, "iat": start.Unix() - 60})),
		l.key.sign(t, "JWT", `{}`),
	} {
		if _, err := l.Check(t.Context(), token); err == nil || l.recall(token) != nil {
			t.Errorf("remembered: %v", err)
		}
	}
	for i, token := range good {
		if _, warm := l.checkWarm(t, token); !warm {
			t.Errorf("token %d was pushed out", i)
		}
	}
	if n := l.warm.remembered(t); n != len(good) {
		t.Errorf("%d tokens are remembered", n)
	}
}

func rand64(n int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[rand.IntN(64)]
	}
	return string(b)
}

// SEC-39: whatever comes, the table stays within its budget, and lets go of the
// expired first, then of those that expire next.
func TestSEC39WarmTableIsBounded(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	entry := func(until int64, size int32) *warmToken {
		e := newWarmToken(rand64(tailLength + r.IntN(2*headLength)))
		e.until, e.size = until, size
		return e
	}
	insert := func(w *warmTable, e *warmToken, now int64) {
		if e.hash == 0 {
			e.hash = w.hash(e.token())
		}
		w.insert(e, e.token(), now)
	}
	for _, tokens := range []int{1, 3, 100, 2000} {
		w := newWarmTable(tokens, false)
		now := int64(1000)
		for range 4*tokens + 100 {
			e := entry(now+r.Int64N(500), 200+r.Int32N(4*tokenBudget))
			insert(w, e, now)
			if w.used.Load() > w.budget {
				t.Fatalf("%d of %d bytes", w.used.Load(), w.budget)
			}
			now += r.Int64N(3)
		}
		w.remembered(t)
	}

	t.Run("expired first", func(t *testing.T) {
		w := newWarmTable(1000, false)
		var dead, alive []*warmToken
		for i := range 1000 {
			e := entry(int64(100+i%2*1000), tokenBudget)
			insert(w, e, 50)
			if i%2 == 0 {
				dead = append(dead, e)
			} else {
				alive = append(alive, e)
			}
		}
		n := w.remembered(t)
		for range 300 {
			e := entry(2000, tokenBudget)
			insert(w, e, 100)
		}
		in := func(list []*warmToken) (n int) {
			for _, e := range list {
				if w.find(e.token()) != nil {
					n++
				}
			}
			return n
		}
		if in(alive) != len(alive) || in(dead) > len(dead)-300 {
			t.Errorf("of %d: %d expired and %d living ones are left", n, in(dead), in(alive))
		}
	})
	t.Run("next to expire", func(t *testing.T) {
		w := newWarmTable(8, false)
		var all []*warmToken
		for i, u := range r.Perm(8) {
			e := entry(int64(1000+u), tokenBudget)
			e.hash = uint64(i + 1)
			all = append(all, e)
			insert(w, e, 100)
		}
		for left := 8; left > 0; left-- {
			w.makeRoom(100)
			w.hand.Store(0)
			for _, e := range all {
				i := e.hash & w.mask
				if in := w.sets[i].slots[0].Load() == e; in != (e.until > int64(1000+8-left)) {
					t.Errorf("of %d, the one until %d is in: %v", left, e.until, in)
				}
			}
		}
	})
	t.Run("a full set", func(t *testing.T) {
		w := newWarmTable(1000, false)
		until := r.Perm(20)
		var all []*warmToken
		for _, u := range until {
			e := entry(int64(1000+u), 1)
			e.hash = uint64(r.Int64())<<32 | 5
			all = append(all, e)
			insert(w, e, 100)
		}
		s := &w.sets[5]
		var left []int64
		for i := range s.slots {
			left = append(left, s.slots[i].Load().until)
		}
		// The last one is in whatever it is; the rest are the ones that live longest.
		slices.Sort(left)
		want := []int64{1013, 1014, 1015, 1016, 1017, 1018, 1019}
		if last := all[19].until; last < 1013 {
			want[0] = last
		}
		if !slices.Equal(left, want) {
			t.Errorf("%v are left, want %v", left, want)
		}
	})
	t.Run("the same token", func(t *testing.T) {
		w := newWarmTable(1000, false)
		e := entry(1000, 300)
		for range 10 {
			again := newWarmToken(e.token())
			again.until, again.size = 1000, 400
			insert(w, again, 100)
		}
		if w.remembered(t) != 1 || w.used.Load() != 400 {
			t.Error("it is there more than once")
		}
	})
	t.Run("busy", func(t *testing.T) {
		w := newWarmTable(1000, false)
		e := entry(1000, 300)
		e.hash = w.hash(e.token())
		s := &w.sets[e.hash&w.mask]
		for want, f := range []func(){func() { insert(w, e, 100) }, func() { w.drop(e) }} {
			s.lock()
			f()
			if s.tags.Load()&lock == 0 {
				t.Error("another's lock was opened")
			}
			s.tags.And(^uint64(lock))
			if w.remembered(t) != want {
				t.Error("a set was written to while others were at work on it")
			}
			insert(w, e, 100)
		}
	})
}

// A default token takes at most what Config.CacheTokens says, and no more than
// the books say.
func TestMemoryOfAWarmToken(t *testing.T) {
	const n = 4000
	l := newLocal(t, func(c *Config, _ *Local) { c.CacheTokens = n })
	k := knownKey{l.eddsa.public, time.Hour, time.Hour}
	c := goodClaims(start).with(claims{
		"sub": "01JD4X1YB0Q6W7R8S9T0V1W2X3", "epoch": 1763770000123456, "roles": []string{"admin", "editor"},
	})
	tokens := make([]string, n)
	for i := range tokens {
		c["sid"], c["jti"] = fmt.Sprintf("%024d", i), fmt.Sprintf("%022d", i)
		tokens[i] = l.eddsa.mint(t, c)
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap() - int64(len(l.warm.sets))*lineBytes
	for _, token := range tokens {
		m, err := jws.Parse(token)
		if err != nil {
			t.Fatal(err)
		}
		c, err := parseClaims(m.Payload)
		if err != nil {
			t.Fatal(err)
		}
		l.remember(token, c, k, 0, start.UnixNano())
	}
	used := heap() - before
	kept := l.warm.remembered(t)
	per, counted := float64(used)/float64(kept), float64(l.warm.used.Load())/float64(kept)
	t.Logf("tokens of %d characters: %.0f bytes each, counted as %.0f", len(tokens[0]), per, counted)
	if per > tokenBudget || counted < 0.97*per || kept < n*999/1000 {
		t.Errorf("%.0f bytes a token, counted as %.0f, of %d; %d kept", per, counted, tokenBudget, kept)
	}
	runtime.KeepAlive(tokens)
}

func TestCacheTokensOff(t *testing.T) {
	l := newLocal(t, func(c *Config, _ *Local) { c.CacheTokens = -1 })
	token := l.key.mint(t, goodClaims(start))
	for range 2 {
		if _, warm := l.checkWarm(t, token); warm {
			t.Error("remembered")
		}
	}
	// An expired token is traded once: nothing to remember.
	exchange := newLocal(t, func(_ *Config, loc *Local) { loc.ExchangeFor = time.Minute })
	if exchange.warm != nil {
		t.Error("a verifier for exchange remembers tokens")
	}
	_, err := NewLocal(Config{Issuer: testIssuer, Audience: testAudience, CacheTokens: maxCacheTokens + 1}, Local{})
	var e *ConfigError
	if !errors.As(err, &e) || e.Field != "CacheTokens" {
		t.Error(err)
	}
}
