package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// healthy is the age that the feed never passes while it is heard: a beat, and
// the node's poll.
const healthy = 150 * time.Millisecond

// follow opens a verifier that follows the feed of a, inside a bubble.
func follow(t *testing.T, a *authority, cfg Config) *Verifier {
	t.Helper()
	cfg.Authority, cfg.APIKey = "http://authority", "cf_sk_hush"
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = inside(a)
	}
	v := open(t, cfg)
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		a.log.server().Close() // it notices who has gone with the next beat only
	})
	return v
}

func answerLive(active *atomic.Bool, asked *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"active":%v}`, active.Load())
	}
}

func TestFeedEndsTokensAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		es := newKey(t, "k1", jws.ES256)
		a := newAuthority(es)
		a.log.publish(endSession("s0"))
		v := follow(t, a, Config{})
		mint := func(more claims) string { return es.mint(t, goodClaims(time.Now()).with(more)) }
		check(t, v, mint(claims{"sid": "s0"}), ErrTokenRevoked) // from the snapshot
		for _, tc := range []struct {
			entry Revocation
			token claims
			want  error
		}{
			{endSession("s1"), claims{"sid": "s1"}, ErrTokenRevoked},
			{Revocation{Kind: RevokeToken, ID: "j2", Until: time.Now().Add(time.Minute)}, claims{"jti": "j2"}, ErrTokenRevoked},
			{Revocation{Kind: RevokeSubject, ID: "u3", StaleBelow: 8, Until: time.Now().Add(time.Minute)}, claims{"sub": "u3"}, ErrTokenStale},
			{Revocation{Kind: RevokeSubject, ID: "u4", RevokedBelow: 8, Until: time.Now().Add(time.Minute)}, claims{"sub": "u4"}, ErrTokenRevoked},
			{Revocation{Kind: RevokeClient, ID: "c5", RevokedBelow: 8, Until: time.Now().Add(time.Minute)}, claims{"client_id": "c5"}, ErrTokenRevoked},
		} {
			token := mint(tc.token)
			check(t, v, token, nil)
			a.log.publish(tc.entry)
			time.Sleep(10 * time.Millisecond)
			check(t, v, token, tc.want)
		}
		if s := v.Stats(); !s.Connected || !s.FeedAgeKnown || s.Events != 6 || s.Snapshots != 1 || s.Position != "7.106" ||
			s.EventLag <= 0 || s.EventLag > healthy || s.Reconnects != 0 || s.Skipped != 0 {
			t.Errorf("%+v", s)
		}
		// It leaves with the last token, by the time that has gone by here.
		time.Sleep(6 * time.Minute)
		if n := v.revocations.Len(); n != 0 {
			t.Errorf("%d entries are left", n)
		}
	})
}

// slowProxy hands on what a stream sends, late.
type slowProxy struct {
	http.RoundTripper
	late    atomic.Int64 // nanoseconds
	running sync.WaitGroup
}

func newSlowProxy(t *testing.T, a *authority) *slowProxy {
	p := &slowProxy{RoundTripper: inside(a).Transport}
	t.Cleanup(p.running.Wait)
	return p
}

func (p *slowProxy) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := p.RoundTripper.RoundTrip(r)
	if err != nil || r.URL.Path != "/v1/revocations" {
		return res, err
	}
	type piece struct {
		data []byte
		at   time.Time
	}
	in, body := make(chan piece, 1<<16), res.Body
	reader, writer := io.Pipe()
	p.running.Go(func() {
		defer close(in)
		for {
			data := make([]byte, 32<<10)
			n, err := body.Read(data)
			if n > 0 {
				in <- piece{data[:n], time.Now()}
			}
			if err != nil {
				return
			}
		}
	})
	p.running.Go(func() {
		for next := range in {
			time.Sleep(time.Until(next.at.Add(time.Duration(p.late.Load()))))
			if _, err := writer.Write(next.data); err != nil {
				break
			}
		}
		writer.CloseWithError(io.ErrUnexpectedEOF)
		for range in {
		}
	})
	res.Body = struct {
		io.Reader
		io.Closer
	}{reader, closers{body, reader}}
	return res, nil
}

type closers []io.Closer

func (c closers) Close() error {
	var errs []error
	for _, one := range c {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}

func TestFeedThatSaysNothingIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(newKey(t, "k1", jws.ES256))
		proxy := newSlowProxy(t, a)
		v := follow(t, a, Config{HTTPClient: &http.Client{Transport: proxy}})
		proxy.late.Store(int64(time.Minute)) // the present stream stands still
		time.Sleep(feedSilence - 200*time.Millisecond)
		if v.Stats().Reconnects != 0 {
			t.Error("given up at once")
		}
		proxy.late.Store(0)
		time.Sleep(time.Second)
		if s := v.Stats(); s.Reconnects != 1 || !s.Connected || s.FeedAge > healthy {
			t.Errorf("%+v", s)
		}
	})
}

func TestFeedOverRestartsAndTimelines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		es := newKey(t, "k1", jws.ES256)
		a := newAuthority(es)
		v := follow(t, a, Config{})
		revoked := func(sid string) {
			t.Helper()
			check(t, v, es.mint(t, goodClaims(time.Now()).with(claims{"sid": sid})), ErrTokenRevoked)
		}
		a.log.publish(endSession("s1"))
		time.Sleep(time.Second)
		for i := range 3 {
			a.log.restart()
			time.Sleep(time.Second)
			if s := v.Stats(); !s.Connected || s.FeedAge > healthy || s.Reconnects != uint64(i+1) || s.Snapshots != 1 {
				t.Errorf("%+v", s)
			}
		}
		// Far behind: a hundred thousand events while nobody listens.
		a.change(func() { a.down = true })
		a.log.restart()
		for i := range 100 {
			var batch []Revocation
			for j := range 1000 {
				batch = append(batch, endSession(fmt.Sprint("m", i, "-", j)))
			}
			a.log.publish(batch...)
		}
		a.change(func() { a.down = false })
		time.Sleep(longestFeedRetry)
		if s := v.Stats(); !s.Connected || s.FeedAge > healthy || s.Events < 100_000 {
			t.Errorf("%+v", s)
		}
		revoked("m0-0")
		revoked("m99-999")

		// Restored from a backup: another timeline, in which less is known. What
		// this verifier knows stays.
		a.log.mu.Lock()
		a.log.timeline, a.log.seq, a.log.table, a.log.log = 8, 5, newTable(), nil
		a.log.mu.Unlock()
		a.log.publish(endSession("s8"))
		time.Sleep(time.Second)
		revoked("s1")
		revoked("s8")
		if s := v.Stats(); s.Position != "8.6" || s.FeedAge > healthy {
			t.Errorf("%+v", s)
		}
		// Restored without telling: every node is behind us. In the end we take
		// what there is.
		a.log.mu.Lock()
		a.log.seq = 2
		a.log.mu.Unlock()
		a.log.restart()
		time.Sleep(3 * time.Second)
		if s := v.Stats(); s.Connected {
			t.Errorf("%+v", s)
		}
		time.Sleep(behindFor + 2*longestFeedRetry)
		if s := v.Stats(); !s.Connected || s.Position != "8.2" || s.FeedAge > healthy {
			t.Errorf("%+v", s)
		}
		revoked("s8")
	})
}

func newTable() *revoked.Table { return revoked.NewTable(nil) }

func TestFeedChangesKeysAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k1, k2, k3 := newKey(t, "k1", jws.ES256), newKey(t, "k2", jws.ES256), newKey(t, "k3", jws.ES256)
		a := newAuthority(k1)
		v := follow(t, a, Config{})
		good := func(k *signingKey) string { return k.mint(t, goodClaims(time.Now())) }

		a.change(func() { a.keys, a.version = []*signingKey{k1, k2}, 2 })
		time.Sleep(200 * time.Millisecond)
		fetched := a.fetches.Load()
		check(t, v, good(k2), nil)
		if a.fetches.Load() != fetched {
			t.Error("the token had to fetch its key")
		}

		// A cache in between answers with the old set: nobody with a good token is
		// told that it is bad, and the new set comes as soon as it can be had.
		stale := a.jwks()
		var stuck atomic.Bool
		stuck.Store(true)
		a.change(func() {
			a.keys, a.version = []*signingKey{k2, k3}, 3
			a.replace = map[string]http.HandlerFunc{"/.well-known/jwks.json": func(w http.ResponseWriter, r *http.Request) {
				if stuck.Load() {
					w.Header().Set("Content-Type", "application/jwk-set+json")
					w.Write(stale)
					return
				}
				w.Header().Set("Content-Type", "application/jwk-set+json")
				w.Write(a.jwks())
			}}
		})
		time.Sleep(200 * time.Millisecond)
		fetched = a.fetches.Load()
		check(t, v, good(k3), ErrUnavailable)
		check(t, v, good(k1), nil)
		time.Sleep(30 * time.Second)
		if n := a.fetches.Load() - fetched; n < 5 || n > 30 {
			t.Errorf("%d fetches in 30 s", n)
		}
		stuck.Store(false)
		time.Sleep(longestAgain + 200*time.Millisecond)
		check(t, v, good(k3), nil)
		check(t, v, good(k1), ErrTokenInvalid)

		// A revoked key is dead before the keys are fetched, and stays so in a
		// set that has it still.
		stuck.Store(true)
		a.log.publish(Revocation{Kind: RevokeKey, ID: "k3"})
		time.Sleep(10 * time.Millisecond)
		check(t, v, good(k3), ErrTokenInvalid)
		a.change(func() { a.replace, a.version = nil, 4 })
		time.Sleep(time.Second)
		check(t, v, good(k3), ErrTokenInvalid)
		check(t, v, good(k2), nil)
		if s := v.Stats(); s.KeyVersion != 4 {
			t.Errorf("%+v", s)
		}
	})
}

func TestFeedRefusesTheAPIKeyLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		es := newKey(t, "k1", jws.ES256)
		a := newAuthority(es)
		var log lockedBuffer
		v := follow(t, a, Config{Logger: textLogger(&log)})
		var tries atomic.Int64
		refuse := func(w http.ResponseWriter, _ *http.Request) {
			tries.Add(1)
			w.WriteHeader(http.StatusUnauthorized)
		}
		a.change(func() {
			a.introspect = refuse
			a.replace = map[string]http.HandlerFunc{"/v1/revocations": refuse, "/v1/revocations/clock": refuse}
		})
		a.log.restart()
		time.Sleep(5 * time.Minute)
		token := es.mint(t, goodClaims(time.Now()))
		check(t, v, token, nil)
		check(t, v, token, ErrUnavailable, MaxFeedAge(time.Second))
		check(t, v, token, ErrUnavailable, Live())
		if n := tries.Load(); n < 5 || n > 40 {
			t.Errorf("%d tries in five minutes", n)
		}
		if !strings.Contains(log.String(), "needs the scope verify") || strings.Contains(log.String(), "cf_sk_hush") {
			t.Error(log.String())
		}
		a.change(func() { a.replace = nil })
		time.Sleep(time.Minute)
		check(t, v, es.mint(t, goodClaims(time.Now())), nil, MaxFeedAge(time.Second))
	})
}

func TestReadyWithKeysAndSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		es := newKey(t, "k1", jws.ES256)
		a := newAuthority(es)
		a.log.publish(endSession("s1"))
		a.replace = map[string]http.HandlerFunc{"/v1/revocations": func(w http.ResponseWriter, _ *http.Request) {
			// A snapshot that breaks off, and a beat that vouches for nothing.
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "event: snapshot\ndata: []\n\nevent: beat\ndata: {\"age_ms\":0,\"now\":1763770000.5,\"keys\":1,\"node\":\"x\"}\n\n")
		}}
		v := follow(t, a, Config{})
		bad, good := es.mint(t, goodClaims(time.Now()).with(claims{"sid": "s1"})), es.mint(t, goodClaims(time.Now()))
		check(t, v, bad, ErrUnavailable)
		check(t, v, good, ErrUnavailable)
		if s := v.Stats(); v.Ready() || s.FeedAgeKnown || s.Connected {
			t.Errorf("%+v", s)
		}
		a.change(func() { a.replace = nil })
		if err := v.Wait(t.Context()); err != nil || !v.Ready() {
			t.Fatal(err)
		}
		check(t, v, bad, ErrTokenRevoked)
		check(t, v, good, nil)

		off := follow(t, a, Config{WithoutFeed: true})
		check(t, off, bad, nil)
		if s := off.Stats(); s.Following || s.FeedAgeKnown {
			t.Errorf("%+v", s)
		}
	})
}

func TestCacheFileOfAVerifierThatFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		es := newKey(t, "k1", jws.ES256)
		a := newAuthority(es)
		file := filepath.Join(t.TempDir(), "cache")
		v := follow(t, a, Config{Cache: file})
		a.log.publish(endSession("s1"), Revocation{Kind: RevokeKey, ID: "stolen"})
		time.Sleep(saveEvery + 5*time.Second) // no orderly end
		crash, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(crash), `"position":"7.102"`) {
			t.Fatalf("%s, %v", crash, err)
		}
		v.Close()

		a.down = true
		began := time.Now()
		v = follow(t, a, Config{Cache: file})
		if !v.Ready() || time.Since(began) > time.Millisecond {
			t.Error("not ready at once")
		}
		token := func(more claims) string { return es.mint(t, goodClaims(time.Now()).with(more)) }
		check(t, v, token(nil), nil)
		check(t, v, token(claims{"sid": "s1"}), ErrTokenRevoked)
		check(t, v, token(nil), ErrUnavailable, Live())
		check(t, v, token(nil), ErrUnavailable, MaxFeedAge(time.Hour))
		if !v.revocations.KeyRevoked("stolen") {
			t.Error("a revoked key came back")
		}
		time.Sleep(time.Minute)
		var from atomic.Value
		a.change(func() {
			a.down = false
			a.replace = map[string]http.HandlerFunc{"/v1/revocations": func(w http.ResponseWriter, r *http.Request) {
				from.Store(r.Header.Get("Last-Event-ID"))
				a.log.server().ServeHTTP(w, r)
			}}
		})
		a.log.publish(endSession("s2"))
		time.Sleep(time.Minute)
		check(t, v, token(claims{"sid": "s2"}), ErrTokenRevoked)
		check(t, v, token(nil), nil, MaxFeedAge(time.Second))
		if from.Load() != "7.102" || v.Stats().Snapshots != 0 {
			t.Error("it did not go on from its place:", from.Load())
		}

		// A file without the revocations lets nobody start who follows.
		a.change(func() { a.down = true })
		var f map[string]any
		if err := json.Unmarshal(crash, &f); err != nil {
			t.Fatal(err)
		}
		delete(f, "feed_at")
		partial, _ := json.Marshal(f)
		other := filepath.Join(t.TempDir(), "cache")
		if err := os.WriteFile(other, partial, 0o600); err != nil {
			t.Fatal(err)
		}
		deaf := follow(t, a, Config{Cache: other})
		check(t, deaf, token(nil), ErrUnavailable)
	})
}

func TestPositionsOfSnapshotsCutShort(t *testing.T) {
	// A stream that ends within a snapshot leaves no place to go on from.
	h := hearing{follower: &follower{clock: time.Now, table: newTable(), age: newFeedAge(), log: quiet, keys: &remoteKeys{}}, whole: true}
	frames := readFrames(t, "event: snapshot\ndata: [[\"s\",\"a\",9999999999]]\n\n", "event: snapshot\nid: 7.9\ndata: [[\"z\",1]]\n\n",
		"event: live\nid: 7.10\ndata: []\n\n", "event: live\nid: 8.1\ndata: []\n\n")
	h.setPosition(frames[1].Pos)
	var got []string
	for _, f := range frames {
		err := h.take(f)
		got = append(got, fmt.Sprint(h.position(), h.whole, err != nil))
	}
	want := []string{"0.0 false false", "7.9 true false", "7.10 true false", "0.0 true true"}
	if !slices.Equal(got, want) || h.stats.skipped.Load() != 1 {
		t.Errorf("%q, skipped %d", got, h.stats.skipped.Load())
	}
}
