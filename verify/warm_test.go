package verify

import (
	"math/rand/v2"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/counterfoil/counterfoil/internal/jws"
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
