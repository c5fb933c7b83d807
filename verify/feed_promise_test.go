package verify

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/jws"
)

// promise is what holds for verifiers that follow a feed, whatever happens to
// it, in both directions: no token is taken that was revoked longer ago than
// the verifier says its feed is old, or than the route takes; and none that is
// good is refused.
type promise struct {
	t      *testing.T
	a      *authority
	tokens []string // one a session

	mu    sync.Mutex
	begun map[int]bool      // sessions whose end has begun
	done  map[int]time.Time // when the store had it
}

// routeAge is what the strict routes of these tests take.
const routeAge = time.Second

func newPromise(t *testing.T, sessions int) *promise {
	es := newKey(t, "k1", jws.ES256)
	p := &promise{t: t, a: newAuthority(es), begun: map[int]bool{}, done: map[int]time.Time{}}
	for i := range sessions {
		p.tokens = append(p.tokens, es.mint(t, goodClaims(time.Now()).with(claims{
			"sid": fmt.Sprint("s", i), "jti": fmt.Sprint("j", i), "exp": time.Now().Unix() + 300})))
	}
	p.a.introspect = func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		active := !p.begun[unsigned(r.FormValue("token")).index]
		p.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"active":%v}`, active)
	}
	return p
}

func (p *promise) revoke(sessions ...int) {
	var entries []Revocation
	p.mu.Lock()
	for _, i := range sessions {
		p.begun[i] = true
		entries = append(entries, endSession(fmt.Sprint("s", i)))
	}
	p.mu.Unlock()
	p.a.log.publish(entries...)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range sessions {
		p.done[i] = time.Now()
	}
}

func (p *promise) state(i int) (begun bool, done time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.begun[i], p.done[i]
}

// look asks a verifier about a session on a plain and on a strict route.
func (p *promise) look(v *Verifier, i int) {
	p.t.Helper()
	_, ended := p.state(i)
	before := time.Now()
	age, known := v.feedAge()
	_, err := v.Check(p.t.Context(), p.tokens[i])
	begun, _ := p.state(i)
	switch {
	case !begun && err != nil:
		p.t.Errorf("session %d is good and was refused: %v", i, err)
	case !ended.IsZero() && err == nil && known && before.Sub(ended) > age:
		p.t.Errorf("session %d was revoked %v ago, the feed's age is %v, and it was accepted", i, before.Sub(ended), age)
	}
	before = time.Now()
	_, err = v.Check(p.t.Context(), p.tokens[i], MaxFeedAge(routeAge))
	begun, _ = p.state(i)
	switch {
	case !begun && err != nil && !errors.Is(err, ErrUnavailable):
		p.t.Errorf("session %d is good and was refused by the strict route: %v", i, err)
	case !ended.IsZero() && err == nil && before.Sub(ended) > routeAge:
		p.t.Errorf("session %d was revoked %v ago, and the strict route took it", i, before.Sub(ended))
	}
}

// settled asks about all sessions where all is well again.
func (p *promise) settled(v *Verifier) {
	p.t.Helper()
	for i := range p.tokens {
		var want error
		if begun, _ := p.state(i); begun {
			want = ErrTokenRevoked
		}
		check(p.t, v, p.tokens[i], want)
		check(p.t, v, p.tokens[i], want, MaxFeedAge(routeAge))
	}
}

// SEC-37: a verifier that comes back to a feed that is a hundred thousand
// events further, by resuming and by a snapshot.
func TestSEC37AHundredThousandEventsBehind(t *testing.T) {
	for name, retain := range map[string]int{"resumed": 64 << 20, "snapshot": 1 << 16} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPromise(t, 6)
				p.a.log.retain = retain
				p.a.log.restart()
				v := follow(t, p.a, Config{})
				p.revoke(0)
				time.Sleep(time.Second)
				p.settled(v)
				before := v.Stats()

				p.a.change(func() { p.a.replace = map[string]http.HandlerFunc{"/v1/revocations": badGateway} })
				p.a.log.server().Close()
				p.a.log.start()
				p.a.log.publish() // what is read from the log now is kept for those who come back
				for i := range 100 {
					batch := make([]Revocation, 1000)
					for j := range batch {
						batch[j] = endSession(fmt.Sprint("m", i, "-", j))
					}
					p.a.log.publish(batch...)
					if i%25 == 0 {
						p.revoke(1 + i/25)
					}
					p.look(v, rand.IntN(len(p.tokens)))
				}
				p.a.change(func() { p.a.replace = nil })
				for range 500 {
					time.Sleep(10 * time.Millisecond)
					p.look(v, rand.IntN(len(p.tokens)))
				}
				time.Sleep(longestFeedRetry)
				p.settled(v)
				s := v.Stats()
				if heard := s.Events - before.Events; !s.Connected || s.FeedAge > healthy || heard < 100_004 {
					t.Errorf("%+v", s)
				}
				if snapshots := s.Snapshots - before.Snapshots; (snapshots == 0) != (name == "resumed") {
					t.Errorf("%d snapshots", snapshots)
				}
			})
		})
	}
}

func badGateway(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }

// stall is a way over which nothing is read for as long as it is shut: what
// lies in front of it fills, and the sender waits.
type stall struct {
	http.RoundTripper
	shut atomic.Bool
}

func (s *stall) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := s.RoundTripper.RoundTrip(r)
	if err == nil && r.URL.Path == "/v1/revocations" {
		res.Body = &stalledBody{res.Body, s}
	}
	return res, err
}

type stalledBody struct {
	io.ReadCloser
	way *stall
}

func (b *stalledBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	for b.way.shut.Load() {
		time.Sleep(time.Millisecond)
	}
	return n, err
}

// SEC-38: a verifier that does not read for a while is cut off by the node, and
// knows how old it is meanwhile; it comes back where it was.
func TestSEC38AStalledReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPromise(t, 8)
		way := &stall{RoundTripper: inside(p.a).Transport}
		v := follow(t, p.a, Config{HTTPClient: &http.Client{Transport: way}})
		for i := range 4 {
			way.shut.Store(true)
			for j := range 300 {
				if j == 50 {
					p.revoke(i)
				}
				time.Sleep(10 * time.Millisecond)
				p.look(v, rand.IntN(len(p.tokens)))
			}
			if age, ok := v.feedAge(); ok && age < 2*time.Second {
				t.Errorf("nothing was read for 3 s, and the feed's age is %v", age)
			}
			if n := p.a.log.server().Stats().Streams; n != 0 {
				t.Errorf("%d streams are held for a reader that stands still", n)
			}
			way.shut.Store(false)
			for range 100 {
				time.Sleep(10 * time.Millisecond)
				p.look(v, rand.IntN(len(p.tokens)))
			}
			time.Sleep(5 * time.Second)
			p.settled(v)
		}
		if s := v.Stats(); s.Snapshots != 1 || s.Reconnects < 4 {
			t.Errorf("%+v", s)
		}
	})
}

// SEC-37: a thousand verifiers lose their authority at once, sessions are
// revoked while it is away, and all come back at once when it is there again.
// Over real sockets.
func TestSEC37AThousandVerifiersComeBackAtOnce(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 50
	}
	p := newPromise(t, 10)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	server := &http.Server{Handler: p.a}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		p.a.log.server().Close()
	})

	verifiers := make([]*Verifier, n)
	var started sync.WaitGroup
	slots := make(chan struct{}, 32)
	for i := range verifiers {
		started.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			v, err := New(t.Context(), Config{Issuer: testIssuer, Audience: testAudience, Authority: "http://" + address,
				APIKey: "cf_sk_hush", CacheTokens: 16, Logger: quiet})
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { v.Close() })
			verifiers[i] = v
		})
	}
	started.Wait()
	if t.Failed() {
		return
	}
	// all waits until something is true of each, and keeps looking at the promise.
	all := func(what string, is func(Stats) bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; {
			missing := 0
			for i, v := range verifiers {
				if !is(v.Stats()) {
					missing++
				}
				if i%10 == 0 {
					p.look(v, rand.IntN(len(p.tokens)))
				}
			}
			if missing == 0 || t.Failed() {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: not so at %d verifiers", what, missing)
			}
		}
	}
	followed := func(s Stats) bool { return s.Connected }
	all("followed", followed)
	p.revoke(0)
	all("heard", func(s Stats) bool { return s.Events >= 1 })

	// It dies, and what it had of a store goes on.
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	p.a.log.server().Close()
	all("noticed", func(s Stats) bool { return !s.Connected && s.Reconnects > 0 })
	p.revoke(1, 2)
	all("old", func(s Stats) bool { return s.FeedAge > routeAge })
	p.revoke(3)

	p.a.log.start()
	if listener, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	server = &http.Server{Handler: p.a}
	go func() { _ = server.Serve(listener) }()
	began := time.Now()
	all("back", followed)
	t.Logf("%d verifiers are back after %v", n, time.Since(began).Round(time.Millisecond))
	p.revoke(4)
	p.a.log.mu.Lock()
	latest := feed.Position{Timeline: p.a.log.timeline, Seq: p.a.log.seq}.String()
	p.a.log.mu.Unlock()
	all("heard again", func(s Stats) bool { return s.Position == latest && s.FeedAge < routeAge })
	for _, v := range verifiers {
		p.settled(v)
	}
}
