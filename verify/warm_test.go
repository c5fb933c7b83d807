package verify

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// checkWarm checks a token that must be good, and tells whether it was remembered.
func (l *local) checkWarm(t *testing.T, token string) (*Claims, bool) {
	t.Helper()
	before := l.recall(token)
	c, err := l.Check(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return c, before != nil && before == c
}

// remembered returns how many tokens a table holds, and insists that its books
// are right and its bound is kept.
func (w *warmTable) remembered(t *testing.T) int {
	t.Helper()
	n, used := 0, int64(0)
	for i := range w.sets {
		s := &w.sets[i]
		for j := range s.slots {
			e := s.slots[j].Load()
			tag := s.tags.Load() >> (8 * j) & 0xff
			if e == nil {
				if tag != 0 {
					t.Errorf("an empty slot has the tag %x", tag)
				}
				continue
			}
			n++
			used += int64(e.size)
			if tag != tagOf(e.hash) || w.find(e.token()) == nil {
				t.Error("a token in the table cannot be found")
			}
		}
		if s.tags.Load()&lock != 0 {
			t.Error("a set is locked")
		}
	}
	if got := w.used.Load(); got != used || used > w.budget {
		t.Errorf("%d bytes are used, the books say %d, of %d", used, got, w.budget)
	}
	return n
}

// Sets and the heads of entries are on one cache line, and what is written often is on no
// line that every request reads.
func TestWarmTableOnCacheLines(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("for machines of 64 bits")
	}
	var (
		table warmTable
		clock coarseClock
	)
	if size := unsafe.Sizeof(warmSet{}); size != lineBytes {
		t.Errorf("a set has %d bytes, not a cache line", size)
	}
	// The allocator puts 8 bytes before an object of this size.
	if size := unsafe.Sizeof(warmToken{}) + 8; size != 10*lineBytes {
		t.Errorf("an entry has %d bytes; footprint counts 640", size)
	}
	if end := unsafe.Offsetof(warmToken{}.size) + 8; end > lineBytes {
		t.Errorf("what each request asks of an entry is on two cache lines")
	}
	for _, tokens := range []int{1, 100, defaultCacheTokens, 100_000} {
		if at := uintptr(unsafe.Pointer(&newWarmTable(tokens, false).sets[0])); at%lineBytes != 0 {
			t.Errorf("the sets for %d tokens begin inside of a cache line", tokens)
		}
	}
	if d := unsafe.Offsetof(table.used) - unsafe.Offsetof(table.clock); d < 2*lineBytes {
		t.Errorf("the counters are %d bytes from what every request reads", d)
	}
	if unsafe.Offsetof(clock.unix) < 2*lineBytes || unsafe.Sizeof(clock)-unsafe.Offsetof(clock.waking) < 2*lineBytes {
		t.Error("the coarse clock shares its line with others")
	}
	if size := unsafe.Sizeof(Claims{}); size > 288 {
		t.Errorf("claims have %d bytes; footprint counts 288", size)
	}
}

func TestWarmTokenSaysTheSame(t *testing.T) {
	l := newLocal(t, nil)
	token := l.key.mint(t, goodClaims(start).with(claims{"roles": []string{"a", "b", "c"}, "scope": "x y", "plan": "gold", "nbf": start.Unix()}))
	first, warm := l.checkWarm(t, token)
	if warm {
		t.Fatal("remembered before it was seen")
	}
	cold, err := newLocal(t, func(c *Config, loc *Local) {
		c.CacheTokens = -1
		loc.Key = func(string) (*jws.PublicKey, bool) { return l.key.public, true }
	}).Check(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	plain := *first
	plain.warm, plain.token, plain.verifier = nil, token, cold.verifier
	if !reflect.DeepEqual(&plain, cold) {
		t.Errorf("%+v\n%+v", plain, cold)
	}
	again, warm := l.checkWarm(t, strings.Clone(token))
	if !warm || again != first {
		t.Error("not remembered")
	}
	// A copy of its own: the text of a request may be part of a long header.
	if again.token != "" || again.warm.token() != token {
		t.Error("the table holds on to the request")
	}
	var mine struct{ Plan string }
	if err := again.Decode(&mine); err != nil || mine.Plan != "gold" {
		t.Error(mine, err)
	}
	// Who appends to a list changes it for nobody else.
	if got := append(again.Roles, "root"); len(got) != 4 || cap(again.Roles) != 3 {
		t.Error("a list has room for more")
	}
	if l.warm.remembered(t) != 1 {
		t.Error("one token is one entry")
	}
}

func TestWarmCostsNoAllocation(t *testing.T) {
	l := newLocal(t, func(c *Config, _ *Local) { c.Clock = nil })
	token := l.key.mint(t, goodClaims(time.Now()).with(claims{"roles": []string{"admin"}, "scope": "x"}))
	typed := l.Handler(func(_ http.ResponseWriter, _ *http.Request, c *Claims) {
		if c.Subject != "user-1" {
			panic(c.Subject)
		}
	}, Cookie(), Role("admin"), Scope("x"), MaxTokenAge(time.Minute), MaxAuthAge(time.Hour))
	context := l.Require()(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	header := request("Authorization", "Bearer "+token)
	inCookie := request("Cookie", "a=b; "+AccessTokenCookie+"="+token+"; c=d", "Sec-Fetch-Site", "same-origin")
	l.checkWarm(t, token)
	for name, tc := range map[string]struct {
		most float64
		f    func()
	}{
		"check":   {0, func() { l.Check(t.Context(), token) }},
		"header":  {0, func() { typed.ServeHTTP(nil, header) }},
		"cookie":  {0, func() { typed.ServeHTTP(nil, inCookie) }},
		"context": {2, func() { context.ServeHTTP(nil, header) }},
	} {
		if got := testing.AllocsPerRun(100, tc.f); got > tc.most {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
}

func TestHandlerKeepsRules(t *testing.T) {
	l := newLocal(t, nil)
	token := l.key.mint(t, goodClaims(start).with(claims{"roles": []string{"editor"}}))
	called := 0
	handler := func(rules ...Rule) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return l.Handler(func(_ http.ResponseWriter, r *http.Request, c *Claims) {
				called++
				if _, ok := FromContext(r.Context()); ok || c.SessionID == "" {
					t.Error("claims belong in the argument")
				}
			}, rules...)
		}
	}
	for range 2 { // cold and warm
		for _, tc := range []struct {
			want  string
			r     *http.Request
			rules []Rule
		}{
			{"", request("Authorization", "Bearer "+token), nil},
			{"", request("Authorization", "Bearer "+token), []Rule{Role("editor")}},
			{CodeInsufficientScope, request("Authorization", "Bearer "+token), []Rule{Role("admin")}},
			{CodeInsufficientAuth, request("Authorization", "Bearer "+token), []Rule{MaxAuthAge(time.Minute)}},
			{CodeCredentialMissing, request(), nil},
			{CodeCredentialMissing, request("Cookie", AccessTokenCookie+"="+token), nil},
			{"", request("Cookie", AccessTokenCookie+"="+token), []Rule{Cookie()}},
			{CodeTokenInvalid, request("Authorization", "Bearer "+token+"A"), nil},
		} {
			before := called
			w := serve(handler(tc.rules...), tc.r)
			if tc.want == "" && called != before+1 || tc.want != "" && (called != before || !strings.HasSuffix(code(t, w), " "+tc.want)) {
				t.Errorf("status %d, called %d times; want %q", w.Code, called-before, tc.want)
			}
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a rule that cannot be kept was taken")
		}
	}()
	handler(Live())(nil)
}

// SEC-66, of tokens that were verified before: both ends to the nanosecond.
func TestSEC66WarmBoundariesOfTime(t *testing.T) {
	l := newLocal(t, nil)
	token := l.key.mint(t, goodClaims(start).with(claims{"nbf": start.Unix() + 2}))
	l.checkWarm(t, token)
	for _, tc := range []struct {
		at   time.Duration
		want error
	}{
		{0, nil},
		{-3 * time.Second, nil},
		{-3*time.Second - 1, ErrTokenInvalid}, // a clock set back
		{65*time.Second - 1, nil},
		{65 * time.Second, ErrTokenExpired},
		{64 * time.Second, nil},
	} {
		l.clock.set(start.Add(tc.at))
		if warm := l.recall(token) != nil; warm != (tc.want == nil) {
			t.Errorf("at %v: remembered %v", tc.at, warm)
		}
		check(t, l.Verifier, token, tc.want)
	}
	l.clock.set(start.Add(20 * time.Second))
	check(t, l.Verifier, token, ErrTokenTooOld, MaxTokenAge(20*time.Second-1))
	check(t, l.Verifier, token, nil, MaxTokenAge(20*time.Second))
}

// The coarse clock changes nothing at the boundaries, whenever the requests
// before them come.
func TestSEC66WarmBoundariesWithTheSystemsClock(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			l := newLocal(t, func(c *Config, _ *Local) { c.Clock = nil })
			at := time.Now().Truncate(time.Second)
			token := l.key.mint(t, goodClaims(at))
			end := at.Add(65 * time.Second)
			for time.Until(end) > 2*time.Second {
				if _, warm := l.checkWarm(t, token); !warm && time.Since(at) > 0 {
					t.Fatal("forgotten")
				}
				time.Sleep(1 + time.Duration(r.Int64N(int64(2*time.Second))))
			}
			for time.Until(end) > 1 {
				l.checkWarm(t, token)
				time.Sleep(min(1+time.Duration(r.Int64N(int64(60*time.Millisecond))), time.Until(end)-1))
			}
			l.checkWarm(t, token)
			time.Sleep(time.Nanosecond)
			check(t, l.Verifier, token, ErrTokenExpired)
		})
	}
}

func TestCoarseClock(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	synctest.Test(t, func(t *testing.T) {
		var c coarseClock
		for range 3000 {
			late := time.Duration(time.Now().UnixNano() - c.now())
			if late < 0 || late > coarseTick {
				t.Fatalf("%v late", late)
			}
			d := time.Duration(r.Int64N(int64(30 * time.Millisecond)))
			if r.IntN(50) == 0 {
				d = time.Duration(r.Int64N(int64(time.Minute)))
			}
			time.Sleep(d)
		}
		// Nothing runs when nobody asks.
		time.Sleep(2 * coarseTick)
		synctest.Wait()
		if c.unix.Load() != 0 || c.waking.Load() {
			t.Error("it does not sleep")
		}
	})
}

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

// The scan of cookies is the plain one, only faster.
func FuzzCookie(f *testing.F) {
	f.Add("a=b; __Host-counterfoil-at=x.y.z ;\t__Host-counterfoil-at=2", "")
	f.Add("__Host-counterfoil-at", "__Host-counterfoil-at=;=;;")
	f.Add(" __Host-counterfoil-at =1;__Host-counterfoil-at==", "__host-counterfoil-at=1")
	f.Fuzz(func(t *testing.T, a, b string) {
		headers := []string{a, b}
		value, n := "", 0
		for _, h := range headers {
			for pair := range strings.SplitSeq(h, ";") {
				k, v, ok := strings.Cut(strings.Trim(pair, " \t"), "=")
				if ok && k == AccessTokenCookie {
					value = v
					n++
				}
			}
		}
		if gotValue, gotN := cookie(headers, AccessTokenCookie); gotValue != value || gotN != n {
			t.Errorf("%q: %q, %d; want %q, %d", headers, gotValue, gotN, value, n)
		}
	})
}

// Every character of a token counts, wherever it is kept.
func TestWarmTokenIsItsWholeText(t *testing.T) {
	for _, n := range []int{tailLength, headLength - 1, headLength, headLength + 1, 2 * headLength} {
		text := rand64(n)
		e := newWarmToken(text)
		if !e.is(strings.Clone(text)) || e.token() != text || e.is(text[1:]) || e.is(text+"A") || e.is(text[:n-1]) {
			t.Errorf("of %d characters", n)
		}
		for i := range n {
			if e.is(text[:i] + "." + text[i+1:]) {
				t.Errorf("of %d characters, character %d does not count", n, i)
			}
		}
	}
}
