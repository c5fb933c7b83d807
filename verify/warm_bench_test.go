package verify

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// contender is one way to do a thing to one of many tokens.
type contender struct {
	name string
	// do handles the token in buf, of which tokens[i] is a copy.
	do     func(i int, buf string) bool
	tokens []string
}

// rounds measures contenders in turns of some milliseconds each, on as many
// processors as the run has, and reports the median time of each for one token,
// and the ratio to the first one. What else the machine does hits all alike,
// and a batch during which it took the processor away is no median.
//
// Tokens are drawn at random, which is the worst there is for caches, and
// copied into a buffer outside of the measured time: a token of a request has
// just been read from a socket, while the copy it is compared with may be anywhere.
func rounds(b *testing.B, contenders ...contender) {
	const turn, batch = 1 << 14, 32
	procs := runtime.GOMAXPROCS(0)
	times := make([][]float64, len(contenders))
	one := func(c contender, seed uint64) time.Duration {
		r := rand.New(rand.NewPCG(seed, 0))
		var index [batch]int
		var buf [batch][1024]byte
		var text [batch]string
		var spent [turn / batch]time.Duration
		for i := range spent {
			for j := range batch {
				index[j] = r.IntN(len(c.tokens))
				n := copy(buf[j][:], c.tokens[index[j]])
				text[j] = unsafe.String(&buf[j][0], n)
			}
			t := time.Now()
			for j := range batch {
				if !c.do(index[j], text[j]) {
					panic("a good token was refused")
				}
			}
			spent[i] = time.Since(t)
		}
		slices.Sort(spent[:])
		return spent[len(spent)/2]
	}
	round := uint64(0)
	for b.Loop() {
		round++
		for i, c := range contenders {
			var wg sync.WaitGroup
			spent := make([][16]time.Duration, procs) // a line of its own each
			for p := range procs {
				wg.Go(func() { spent[p][0] = one(c, round<<8|uint64(p)) })
			}
			wg.Wait()
			var sum time.Duration
			for p := range procs {
				sum += spent[p][0]
			}
			times[i] = append(times[i], float64(sum)/float64(batch*procs*procs))
		}
	}
	medians := make([]float64, len(times))
	for i, t := range times {
		slices.Sort(t)
		medians[i] = t[len(t)/2]
		b.ReportMetric(medians[i], contenders[i].name+"-ns")
		if i > 0 {
			b.ReportMetric(medians[i]/medians[0], contenders[i].name+"/"+contenders[0].name)
		}
	}
	b.ReportMetric(0, "ns/op") // of all together, which says nothing
}

// unsignedTokens are tokens with the claims of ordinary ones and signatures
// made up, since a million signatures take their time.
func unsignedTokens(b *testing.B, n int) []string {
	b.Helper()
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","kid":"k2","typ":"at+jwt"}`))
	signature := make([]byte, 64)
	r := rand.NewChaCha8([32]byte{1})
	tokens := make([]string, n)
	c := benchClaims()
	for i := range tokens {
		c["sid"], c["sub"], c["jti"] = fmt.Sprintf("%024d", i), fmt.Sprintf("user-%021d", i), fmt.Sprintf("%022d", i)
		payload, err := json.Marshal(c)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.Read(signature); err != nil {
			b.Fatal(err)
		}
		tokens[i] = header + "." + base64.RawURLEncoding.EncodeToString(payload) + "." + base64.RawURLEncoding.EncodeToString(signature)
	}
	return tokens
}

// warmed is a verifier that remembers the tokens, as if it had verified them,
// and knows of so many revocations of others. Of a great many tokens a few in
// ten thousand find their set full; the ones that are remembered are returned.
func warmed(b *testing.B, tokens []string, revocations int) (*local, []string) {
	b.Helper()
	l := newLocal(b, func(c *Config, loc *Local) {
		silent(c, nil)
		loc.MaxTokenLifetime = func() time.Duration { return 2 * time.Hour }
		c.CacheTokens = max(len(tokens), defaultCacheTokens)
		c.Clock = nil // the clock that it has in earnest
	})
	k := knownKey{l.eddsa.public, 2 * time.Hour, longestDiscovered}
	now := time.Now()
	l.clock.set(now)
	entries := make([]revoked.Entry, 0, 1000)
	for i := range revocations {
		entries = append(entries, revoked.Entry{Kind: revoked.Session, ID: fmt.Sprintf("revoked-%016d", i), Until: now.Add(time.Hour)})
		if len(entries) == cap(entries) || i == revocations-1 {
			l.table.Apply(entries...)
			entries = entries[:0]
		}
	}
	for _, token := range tokens {
		m, err := jws.Parse(token)
		if err != nil {
			b.Fatal(err)
		}
		c, err := parseClaims(m.Payload)
		if err != nil {
			b.Fatal(err)
		}
		c.IssuedAt, c.ExpiresAt = now.Add(-10*time.Second), now.Add(time.Hour)
		l.remember(token, c, k, l.table.Version(), now.UnixNano())
	}
	kept := slices.Clone(tokens)
	kept = slices.DeleteFunc(kept, func(token string) bool { return l.recall(token) == nil })
	if len(kept) < len(tokens)*999/1000 {
		b.Fatalf("%d of %d tokens are remembered", len(kept), len(tokens))
	}
	runtime.GC()
	return l, kept
}

func (l *local) contender(name string, tokens []string) contender {
	ctx := context.Background()
	return contender{name, func(_ int, token string) bool {
		_, err := l.Check(ctx, token)
		return err == nil
	}, tokens}
}

// BenchmarkWarm checks tokens that were verified before, where nothing and
// where a million other sessions are revoked, beside a sync.Map that knows the
// text of a token and looks at nothing else.
func BenchmarkWarm(b *testing.B) {
	for _, n := range []int{100, 10_000, 1_000_000} {
		if n > 10_000 && testing.Short() {
			continue
		}
		var contenders []contender
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			if contenders == nil {
				tokens := unsignedTokens(b, n)
				var plain sync.Map
				for _, token := range tokens {
					plain.Store(string([]byte(token)), new(Claims))
				}
				none, some := warmed(b, tokens, 0)
				many, others := warmed(b, tokens, 1_000_000)
				contenders = []contender{
					{"syncmap", func(_ int, token string) bool { _, ok := plain.Load(token); return ok }, tokens},
					none.contender("0revoked", some), many.contender("1Mrevoked", others),
				}
			}
			rounds(b, contenders...)
		})
	}
}

// BenchmarkWarmWhileRevoking checks 10,000 tokens while sessions of others are
// revoked at a steady rate, which makes each token be asked about again.
func BenchmarkWarmWhileRevoking(b *testing.B) {
	const n = 10_000
	l, tokens := warmed(b, unsignedTokens(b, n), 10_000)
	for _, rate := range []int{0, 100, 1000} {
		b.Run(fmt.Sprint(rate), func(b *testing.B) {
			stop, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for i := 0; rate > 0; i++ {
					select {
					case <-stop:
						return
					case <-time.After(time.Second / time.Duration(rate)):
						l.table.Apply(revoked.Entry{Kind: revoked.Session, ID: fmt.Sprint(i), Until: time.Now().Add(time.Hour)})
					}
				}
			}()
			rounds(b, l.contender("check", tokens))
			close(stop)
			if rate > 0 {
				<-done
			}
		})
	}
}

// BenchmarkHandlers is the way from a request to the claims in a handler, for
// 100 tokens: nothing, as a handler with an argument, through the context, and
// both with the token in a cookie among others.
func BenchmarkHandlers(b *testing.B) {
	l, tokens := warmed(b, unsignedTokens(b, 100), 1_000_000)
	headers, cookies := make([]*http.Request, len(tokens)), make([]*http.Request, len(tokens))
	for i, token := range tokens {
		headers[i] = httptest.NewRequest("GET", "/", nil)
		headers[i].Header.Set("Authorization", "Bearer "+token)
		headers[i].Header.Set("Accept", "*/*")
		headers[i].Header.Set("User-Agent", "bench")
		cookies[i] = httptest.NewRequest("GET", "/", nil)
		cookies[i].Header.Set("Cookie", "theme=dark; __Host-counterfoil=cf_st_4fzyo82mvyr9z0KfJ2W8QhpD; "+AccessTokenCookie+"="+token+"; lang=en")
	}
	bare := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	typed := func(_ http.ResponseWriter, _ *http.Request, c *Claims) {
		if c.SessionID == "" {
			panic("no claims")
		}
	}
	inContext := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if c, ok := FromContext(r.Context()); !ok || c.SessionID == "" {
			panic("no claims")
		}
	})
	serve := func(name string, h http.Handler, requests []*http.Request) contender {
		w := &quietWriter{}
		return contender{name, func(i int, _ string) bool { h.ServeHTTP(w, requests[i]); return true }, tokens}
	}
	rounds(b,
		serve("bare", bare, headers),
		serve("typed", l.Handler(typed), headers),
		serve("context", l.Require()(inContext), headers),
		serve("cookie", l.Handler(typed, Cookie()), cookies),
		serve("cookie-context", l.Require(Cookie())(inContext), cookies),
	)
}

// quietWriter is where handlers write that must not.
type quietWriter struct{}

func (quietWriter) Header() http.Header         { panic("written to") }
func (quietWriter) Write(p []byte) (int, error) { panic("written to") }
func (quietWriter) WriteHeader(int)             { panic("written to") }
