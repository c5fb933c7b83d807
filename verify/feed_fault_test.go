package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/jws"
)

// faults spoils the way between a verifier and its authority, as networks,
// proxies and retries do: streams break off anywhere, frames come twice, and
// entries of a frame in any order, late; requests fail.
type faults struct {
	next http.RoundTripper

	mu     sync.Mutex
	r      *rand.Rand
	quiet  bool // no faults any more
	down   bool
	late   time.Duration
	bodies map[io.Closer]bool
}

func (f *faults) chance(p float64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.quiet && f.r.Float64() < p
}

// change sets what may be set, at random.
func (f *faults) change() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = f.r.Float64() < 0.2
	f.late = 0
	if f.r.Float64() < 0.3 {
		f.late = time.Duration(f.r.Int64N(int64(2 * time.Second)))
	}
	if f.r.Float64() < 0.5 {
		f.cut()
	}
}

// end stops all faults.
func (f *faults) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quiet, f.down, f.late = true, false, 0
	f.cut()
}

func (f *faults) cut() {
	for body := range f.bodies {
		body.Close()
	}
	clear(f.bodies)
}

func (f *faults) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	down, late := f.down, f.late
	f.mu.Unlock()
	time.Sleep(late / 4)
	if down || f.chance(0.1) {
		return nil, errors.New("planted: no connection")
	}
	res, err := f.next.RoundTrip(r)
	if err != nil || r.URL.Path != "/v1/revocations" || res.StatusCode != http.StatusOK {
		return res, err
	}
	reader, writer := io.Pipe()
	body := closers{res.Body, reader}
	f.mu.Lock()
	f.bodies[&body] = true
	f.mu.Unlock()
	go f.spoil(res.Body, writer)
	res.Body = struct {
		io.Reader
		io.Closer
	}{reader, body}
	return res, nil
}

// Close makes *closers a key of faults.bodies.
var _ io.Closer = (*closers)(nil)

func (f *faults) spoil(from io.Reader, to *io.PipeWriter) {
	defer to.CloseWithError(io.ErrUnexpectedEOF)
	reader := feed.NewReader(from)
	var earlier []byte
	for {
		frame, err := reader.Next()
		if err != nil {
			return
		}
		f.mu.Lock()
		late := f.late
		f.r.Shuffle(len(frame.Entries), func(i, j int) {
			frame.Entries[i], frame.Entries[j] = frame.Entries[j], frame.Entries[i]
		})
		f.mu.Unlock()
		time.Sleep(late / 20) // the next frames wait behind this one
		var text []byte
		switch frame.Kind {
		case feed.Snapshot:
			text = feed.AppendSnapshot(nil, frame.Pos, frame.Entries)
		case feed.Live:
			text = feed.AppendLive(nil, frame.Pos, frame.Entries)
			if f.chance(0.3) {
				text = append(text, text...)
			}
			if f.chance(0.1) {
				text = append(bytes.Clone(earlier), text...)
			}
			earlier = text
		default:
			text = feed.AppendBeat(nil, frame.Beat)
		}
		if f.chance(0.02) {
			f.mu.Lock()
			n := f.r.IntN(len(text))
			f.mu.Unlock()
			_, _ = to.Write(text[:n])
			return
		}
		if _, err := to.Write(text); err != nil {
			return
		}
	}
}

// SEC-37: whatever happens to streams and nodes, a verifier takes no token that
// was revoked longer ago than it says its feed is old, or than the route takes,
// and refuses none that is good.
func TestSEC37FeedUnderFaults(t *testing.T) {
	first, runs := uint64(time.Now().UnixNano()), 8
	if s := os.Getenv("COUNTERFOIL_TEST_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, runs = seed, 1
	}
	for i := range runs {
		seed := first + uint64(i)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { underFaults(t, seed) })
		})
	}
}

func underFaults(t *testing.T, seed uint64) {
	t.Logf("COUNTERFOIL_TEST_SEED=%d replays", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const sessions = 60
	const bound = 1500 * time.Millisecond

	es := newKey(t, "k1", jws.EdDSA)
	a := newAuthority(es)
	a.log.retain = 1 << (6 + seed%6) // some come back to a snapshot
	a.log.restart()
	ended := make([]time.Time, sessions) // what the store knows
	var mu sync.Mutex
	a.introspect = func(w http.ResponseWriter, r *http.Request) {
		c := unsigned(r.FormValue("token"))
		mu.Lock()
		active := ended[c.index].IsZero()
		mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"active":%v}`, active)
	}
	net := &faults{next: inside(a).Transport, r: rand.New(rand.NewPCG(seed, 1)), bodies: make(map[io.Closer]bool)}
	v := follow(t, a, Config{HTTPClient: &http.Client{Transport: net}})
	if err := v.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	tokens := make([]string, sessions)
	for i := range tokens {
		tokens[i] = es.mint(t, goodClaims(time.Now()).with(claims{"sid": fmt.Sprint("s", i), "jti": fmt.Sprint("j", i), "exp": time.Now().Unix() + 300}))
	}
	plain, strict := v.Checker(), v.Checker(MaxFeedAge(bound))
	look := func(i int) {
		mu.Lock()
		at := ended[i]
		mu.Unlock()
		age, known := v.feedAge()
		_, err := plain(t.Context(), tokens[i])
		switch {
		case at.IsZero() && err != nil:
			t.Errorf("session %d is good and was refused: %v", i, err)
		case !at.IsZero() && err == nil && known && time.Since(at) > age:
			t.Errorf("session %d was revoked %v ago, the feed's age is %v, and it was accepted", i, time.Since(at), age)
		}
		before := time.Now()
		_, err = strict(t.Context(), tokens[i])
		mu.Lock()
		at = ended[i]
		mu.Unlock()
		switch {
		case at.IsZero() && err != nil && !errors.Is(err, ErrUnavailable):
			t.Errorf("session %d is good and was refused by the strict route: %v", i, err)
		case !at.IsZero() && err == nil && before.Sub(at) > bound:
			t.Errorf("session %d was revoked %v ago, and the strict route took it", i, before.Sub(at))
		}
	}
	for range 1500 {
		time.Sleep(time.Duration(r.Int64N(int64(120 * time.Millisecond))))
		switch n := r.IntN(100); {
		case n < 3:
			i := r.IntN(sessions)
			mu.Lock()
			fresh := ended[i].IsZero() && i%3 != 0 // a third of them stays good
			if fresh {
				ended[i] = time.Now()
			}
			mu.Unlock()
			if fresh {
				a.log.publish(endSession(fmt.Sprint("s", i)))
			}
		case n < 6:
			net.change()
		case n < 7:
			a.log.restart()
		case n < 9:
			a.log.freeze(r.IntN(2) == 0)
		default:
			look(r.IntN(sessions))
		}
	}
	net.end()
	a.log.freeze(false)
	time.Sleep(longestFeedRetry + 5*time.Second)
	if s := v.Stats(); !s.Connected || s.FeedAge > healthy {
		t.Errorf("%+v", s)
	}
	for i := range tokens {
		look(i)
	}
	s := v.Stats()
	t.Logf("%d events heard, %d snapshots, %d streams broke, %d live checks", s.Events, s.Snapshots, s.Reconnects, s.FeedChecks)
}

// unsigned reads which session a token is of.
func unsigned(token string) (c struct{ index int }) {
	m, err := jws.Parse(token)
	if err != nil {
		panic(err)
	}
	var p struct{ Sid string }
	if err := json.Unmarshal(m.Payload, &p); err != nil {
		panic(err)
	}
	fmt.Sscanf(p.Sid, "s%d", &c.index)
	return c
}
