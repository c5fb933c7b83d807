package counterfoil_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/verify"
)

// nodes are authorities on one store, as several processes are.
func nodes(t *testing.T, n int, store counterfoil.Store, change func(*counterfoil.Config)) []*counterfoil.Authority {
	t.Helper()
	seal := newSeal()
	var all []*counterfoil.Authority
	for range n {
		all = append(all, open(t, store, func(c *counterfoil.Config) {
			c.Seal = seal
			if change != nil {
				change(c)
			}
		}))
	}
	return all
}

// pollTime is how long another node may take to know.
const pollTime = 10 * time.Millisecond

func TestAnotherNodeRefusesWithinThePoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := nodes(t, 2, newStore(t), nil)
		here, there := n[0], n[1]
		ended, stale := signIn(t, here, "alice"), signIn(t, here, "bob")
		for _, g := range []*counterfoil.Grant{ended, stale} {
			if _, err := check(t, there, g.AccessToken); err != nil {
				t.Fatal(err)
			}
		}
		if err := here.RevokeSession(t.Context(), ended.Session.ID, counterfoil.SignedOut); err != nil {
			t.Fatal(err)
		}
		if err := here.RightsChanged(t.Context(), "bob"); err != nil {
			t.Fatal(err)
		}
		_, err := check(t, here, ended.AccessToken)
		wantErr(t, err, verify.ErrTokenRevoked) // before the call returned
		time.Sleep(pollTime)
		_, err = check(t, there, ended.AccessToken)
		wantErr(t, err, verify.ErrTokenRevoked)
		_, err = check(t, there, stale.AccessToken)
		wantErr(t, err, verify.ErrTokenStale)
	})
}

func TestAnotherNodeFollowsTheKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := nodes(t, 2, newStore(t), nil)
		here, there := n[0], n[1]
		old := signIn(t, here, "alice")
		if err := here.RotateKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pollTime)
		if string(here.JWKS()) != string(there.JWKS()) {
			t.Error("the nodes publish different keys after a rotation")
		}
		fresh := signIn(t, here, "bob")
		if kid(t, fresh) != kid(t, signIn(t, there, "bob")) {
			t.Error("the nodes sign with different keys after a rotation")
		}
		for _, g := range []*counterfoil.Grant{old, fresh} {
			if _, err := check(t, there, g.AccessToken); err != nil {
				t.Error(err)
			}
		}
		if err := here.RevokeKey(t.Context(), kid(t, fresh)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pollTime)
		_, err := check(t, there, fresh.AccessToken)
		wantErr(t, err, verify.ErrTokenInvalid)
		if _, err := check(t, here, refresh(t, there, fresh).AccessToken); err != nil {
			t.Errorf("a token that the other node minted after the key was revoked: %v", err)
		}
	})
}

// listener reads a node's feed without a network.
type listener struct {
	*feed.Reader
	t   *testing.T
	ids map[string]bool
	pos feed.Position
	// snapshots that came to their end
	snapshots int
	beat      feed.Beat
}

type pipeWriter struct {
	net.Conn
	header http.Header
}

func (p *pipeWriter) Header() http.Header { return p.header }
func (p *pipeWriter) WriteHeader(int)     {}
func (p *pipeWriter) FlushError() error   { return nil }

func listen(t *testing.T, a *counterfoil.Authority, last string) *listener {
	here, there := net.Pipe()
	r := httptest.NewRequest(http.MethodGet, "/v1/revocations", nil)
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	var served sync.WaitGroup
	served.Go(func() {
		a.ServeFeed(&pipeWriter{there, http.Header{}}, r)
		there.Close()
	})
	t.Cleanup(func() {
		here.Close()
		served.Wait()
	})
	return &listener{Reader: feed.NewReader(here), t: t, ids: map[string]bool{}}
}

// untilBeat takes frames up to the next beat.
func (l *listener) untilBeat() {
	l.t.Helper()
	for {
		f, err := l.Next()
		if err != nil {
			l.t.Fatal(err)
		}
		for _, e := range f.Entries {
			l.ids[e.Kind.String()+" "+e.ID] = true
		}
		if f.HasPos {
			l.pos = f.Pos
			if f.Kind == feed.Snapshot {
				l.snapshots++
			}
		}
		if f.Kind == feed.Heartbeat {
			l.beat = f.Beat
			return
		}
	}
}

func TestFeedTellsEachRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := authority(t)
		before, after := signIn(t, a, "alice"), signIn(t, a, "bob")
		revoke := func(g *counterfoil.Grant) {
			if err := a.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut); err != nil {
				t.Fatal(err)
			}
			time.Sleep(pollTime)
		}
		revoke(before)
		l := listen(t, a, "")
		l.untilBeat()
		if !l.ids["s "+before.Session.ID] || l.snapshots != 1 {
			t.Errorf("the snapshot tells %v", l.ids)
		}
		revoke(after)
		l.untilBeat()
		if !l.ids["s "+after.Session.ID] || l.snapshots != 1 || l.pos.Seq != 2 {
			t.Errorf("the feed tells %v up to %s", l.ids, l.pos)
		}
		again := listen(t, a, feed.Position{Timeline: l.pos.Timeline, Seq: 1}.String())
		again.untilBeat()
		if again.ids["s "+before.Session.ID] || !again.ids["s "+after.Session.ID] || again.snapshots != 0 {
			t.Errorf("resumed, the feed tells %v", again.ids)
		}
		if l.beat.Keys != 1 || l.beat.Node == "" {
			t.Errorf("beat %+v", l.beat)
		}
		if err := a.RotateKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.untilBeat()
		if l.beat.Keys != 2 {
			t.Errorf("after a rotation: beat %+v", l.beat)
		}
	})
}

func TestKeyEntriesNeverLeaveTheFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		a := nodes(t, 1, store, nil)[0]
		g := signIn(t, a, "alice")
		key := kid(t, g)
		if err := a.RevokeKey(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if err := a.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Hour)
		if _, err := a.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		l := listen(t, a, "")
		l.untilBeat()
		if !l.ids["k "+key] || l.ids["s "+g.Session.ID] {
			t.Errorf("three hours later the snapshot tells %v", l.ids)
		}
	})
}

// faultyFeed is a store whose feed log a test takes down or alters.
type faultyFeed struct {
	counterfoil.Store
	mu       sync.Mutex
	down     bool
	timeline int64             // more than the store says
	restored counterfoil.Store // instead of it
	fail     func() bool       // by chance
}

func (s *faultyFeed) Feed() counterfoil.FeedLog {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.restored != nil {
		return &faultyLog{s.restored.Feed(), s}
	}
	return &faultyLog{s.Store.Feed(), s}
}

func (s *faultyFeed) set(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
}

var errFault = errors.New("taken down by the test")

func (s *faultyFeed) check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down || s.fail != nil && s.fail() {
		return errFault
	}
	return nil
}

type faultyLog struct {
	counterfoil.FeedLog
	s *faultyFeed
}

func (l *faultyLog) Tail(ctx context.Context, after int64) (counterfoil.Tail, error) {
	if err := l.s.check(); err != nil {
		return nil, err
	}
	tail, err := l.FeedLog.Tail(ctx, after)
	return &faultyTail{tail, l.s}, err
}

type faultyTail struct {
	counterfoil.Tail
	s *faultyFeed
}

func (f *faultyTail) Next(ctx context.Context) (counterfoil.FeedBatch, error) {
	batch, err := f.Tail.Next(ctx)
	if err := f.s.check(); err != nil {
		return counterfoil.FeedBatch{}, err // what was read is lost on the way
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	batch.Timeline += f.s.timeline
	return batch, err
}

func TestAgeGrowsWhileTheStoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		faulty := &faultyFeed{Store: store}
		seal := newSeal()
		logs := &strings.Builder{}
		a := open(t, faulty, func(c *counterfoil.Config) { c.Seal = seal; c.Logger = slog.New(slog.NewTextHandler(logs, nil)) })
		other := open(t, store, func(c *counterfoil.Config) { c.Seal = seal })
		g := signIn(t, other, "alice")
		l := listen(t, a, "")
		l.untilBeat()
		for range 20 {
			l.untilBeat()
			if l.beat.AgeMS > 40 {
				t.Fatalf("age %d ms with a healthy store", l.beat.AgeMS)
			}
		}
		faulty.set(func() { faulty.down = true })
		began := time.Now()
		if err := other.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			l.untilBeat()
			if age := time.Since(began).Milliseconds(); l.beat.AgeMS < age || l.beat.AgeMS > age+40 {
				t.Errorf("beat of age %d ms, the store has been down for %d ms", l.beat.AgeMS, age)
			}
		}
		if _, err := check(t, a, g.AccessToken); err != nil {
			t.Errorf("the store is down: %v", err)
		}
		if n := strings.Count(logs.String(), "feed log"); n != 1 {
			t.Errorf("%d complaints in 5 s:\n%s", n, logs)
		}
		faulty.set(func() { faulty.down = false })
		time.Sleep(time.Second) // the longest pause before the next try
		_, err := check(t, a, g.AccessToken)
		wantErr(t, err, verify.ErrTokenRevoked)
		l.untilBeat()
		for range 3 {
			l.untilBeat()
		}
		if l.beat.AgeMS > 40 || !l.ids["s "+g.Session.ID] {
			t.Errorf("after the store came back: age %d ms, told %v", l.beat.AgeMS, l.ids)
		}
	})
}

func TestFollowerLosesNothingToErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		store := newStore(t)
		faulty := &faultyFeed{Store: store}
		seal := newSeal()
		a := open(t, faulty, func(c *counterfoil.Config) { c.Seal = seal })
		other := open(t, store, func(c *counterfoil.Config) { c.Seal = seal })
		faulty.set(func() { faulty.fail = func() bool { return random.IntN(3) == 0 } })
		pace := rand.New(rand.NewPCG(seed, 1))
		var tokens []string
		for range 100 {
			g := signIn(t, other, "alice")
			tokens = append(tokens, g.AccessToken)
			if err := other.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(pace.IntN(30)) * time.Millisecond)
		}
		faulty.set(func() { faulty.fail = nil })
		time.Sleep(time.Second)
		for i, token := range tokens {
			if _, err := check(t, a, token); !errors.Is(err, verify.ErrTokenRevoked) {
				t.Errorf("revocation %d of %d: %v", i, len(tokens), err)
			}
		}
	})
}

func TestAnotherTimelineIsReadFromItsBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		faulty := &faultyFeed{Store: store}
		a := open(t, faulty, nil)
		for range 3 {
			if err := a.RightsChanged(t.Context(), "alice"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(pollTime)
		l := listen(t, a, "")
		l.untilBeat()
		first := l.pos
		if l.snapshots != 1 || first.Seq != 3 {
			t.Fatalf("%d snapshots, position %s", l.snapshots, l.pos)
		}
		backup := newStore(t)
		if err := open(t, backup, nil).RightsChanged(t.Context(), "bob"); err != nil {
			t.Fatal(err)
		}
		head, err := backup.Feed().Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		faulty.set(func() { faulty.timeline, faulty.restored = 4, backup })
		restored := feed.Position{Timeline: head.Timeline + 4, Seq: 1}
		l.untilBeat()
		l.untilBeat()
		if l.snapshots != 2 || l.pos != restored || !l.ids["u bob"] {
			t.Errorf("%d snapshots, position %s, %v", l.snapshots, l.pos, l.ids)
		}
		l = listen(t, a, first.String())
		l.untilBeat()
		if l.snapshots != 1 || l.pos != restored || !l.ids["u alice"] || !l.ids["u bob"] {
			t.Errorf("with the old position: %d snapshots, position %s, %v", l.snapshots, l.pos, l.ids)
		}
	})
}

// A node whose clock is wrong mints nothing, but it goes on serving the feed:
// what it keeps must not depend on its clock.
func TestEntriesStayWhateverTheClockSays(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			store := newStore(t)
			seal := newSeal()
			good := open(t, store, func(c *counterfoil.Config) { c.Seal = seal })
			skewed := open(t, store, func(c *counterfoil.Config) {
				c.Seal = seal
				c.Clock = func() time.Time { return time.Now().Add(off) }
			})
			g := signIn(t, good, "alice")
			if err := good.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Until(g.ExpiresAt) + 9*time.Second) // the last moment of leeway and mint error
			l := listen(t, skewed, "")
			l.untilBeat()
			if !l.ids["s "+g.Session.ID] {
				t.Errorf("a node whose clock is off by %s tells %v", off, l.ids)
			}
		})
	}
}

func TestServeFeedClock(t *testing.T) {
	a := authority(t)
	w := httptest.NewRecorder()
	a.ServeFeedClock(w, httptest.NewRequest(http.MethodGet, "/v1/revocations/clock", nil))
	c, err := feed.ParseClock(w.Body.Bytes())
	if err != nil || c.Node == "" || time.Since(time.UnixMicro(int64(c.Now*1e6))).Abs() > time.Minute {
		t.Errorf("%s: %v", w.Body, err)
	}
}

func TestCloseEndsFeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := authority(t)
		l := listen(t, a, "")
		l.untilBeat()
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if f, err := l.Next(); err == nil {
			t.Errorf("after Close came %+v", f)
		}
	})
}
