package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"mime"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

const (
	// feedTimeout bounds what lies between a request for the feed and its
	// first frame.
	feedTimeout = 5 * time.Second
	// feedSilence is how long a stream may say nothing before it is given up.
	// It doubles with each stream that ends so, for what lies between may
	// hold frames back, and is as short again once they come in time.
	feedSilence    = 3 * time.Second
	longestSilence = 24 * time.Second
	calmAfter      = 30 * time.Second
	// feedRetry is the most that is waited before the first new attempt.
	feedRetry        = 100 * time.Millisecond
	longestFeedRetry = 20 * time.Second
	// refusedRetry is waited at least where the authority does not want us:
	// somebody has to mend the configuration first.
	refusedRetry = 2 * time.Second
	// steady is how long a stream has to last to count as none that failed.
	steady = 5 * time.Second
	// behindFor is how long nodes may say that they are not as far as we are,
	// before we ask for all that they have.
	behindFor = 30 * time.Second
	saveEvery = 15 * time.Second // how often the cache file is written
	// retainMargin is how much longer than the longest token a revocation is
	// kept: leeway, the error of the minting clock, and a reserve.
	retainMargin = 15 * time.Second
)

// follower follows the feed of revocations of an authority. What it hears it
// puts into the table; nothing that happens to a stream takes anything out.
type follower struct {
	url       string
	clockURL  string
	client    *http.Client
	authorize func(*http.Request) // holds the API key where no printing finds it
	clock     func() time.Time
	log       *slog.Logger
	table     *revoked.Table
	keys      *remoteKeys
	age       *feedAge
	woke      func()        // called when the machine was suspended
	pinning   chan struct{} // says that a stream has begun to beat
	tap       feed.Tap      // nil: nobody serves the feed on

	heard atomic.Bool   // all that is retained has been heard, or was in the cache file
	begun chan struct{} // closed when the verifier may serve
	once  sync.Once

	mu  sync.Mutex
	pos feed.Position // zero: none
	at  int64         // what told said last

	cut     atomic.Pointer[context.CancelCauseFunc] // ends the present stream
	silence time.Duration                           // of the run goroutine
	behind  time.Duration                           // when a node first said that it is behind us; 0: none did
	anew    bool                                    // the next stream is asked for from its beginning, whatever the position

	stats feedStats

	ctx    context.Context // ends with stop
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

func newFollower(cfg Config, client *http.Client, keys *remoteKeys) *follower {
	key := cfg.APIKey
	f := &follower{
		url:       cfg.Authority + "/v1/revocations",
		clockURL:  cfg.Authority + "/v1/revocations/clock",
		client:    client,
		authorize: func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+key) },
		clock:     cfg.Clock,
		log:       cfg.Logger,
		table:     keys.table,
		keys:      keys,
		age:       newFeedAge(),
		woke:      func() {},
		pinning:   make(chan struct{}, 1),
		begun:     make(chan struct{}),
		silence:   feedSilence,
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

func (f *follower) start() {
	f.ended.Go(f.run)
	f.ended.Go(f.pinClock)
	if f.keys.cache != "" {
		f.ended.Go(f.keepCache)
	}
}

func (f *follower) stop() {
	f.cancel()
	f.ended.Wait()
	f.stats.connected.Store(false)
	if f.heard.Load() {
		f.keys.saveCache()
	}
}

// run keeps a stream open until stop. It begins when there are keys: then the
// authority has said that it is the issuer's, and how long its tokens live.
func (f *follower) run() {
	select {
	case <-f.keys.have:
	case <-f.ctx.Done():
		return
	}
	failures := 0
	for {
		began, _ := f.age.read()
		err := f.stream()
		if f.ctx.Err() != nil {
			return
		}
		f.stats.connected.Store(false)
		f.stats.ends.Add(1)
		ended, _ := f.age.read()
		if ended-began >= steady {
			failures = 0
		}
		wait := f.pause(err, failures)
		f.complain(err, failures)
		failures++
		select {
		case <-f.ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// pause is what to wait after a stream that failed: any time up to a bound
// that doubles, so that the verifiers of a node that ends come back spread
// out, yet at once where it was the connection alone that broke.
func (f *follower) pause(err error, failures int) time.Duration {
	most := min(feedRetry<<min(failures, 16), longestFeedRetry)
	wait := rand.N(most)
	var refusal *feedRefusal
	if errors.As(err, &refusal) {
		switch {
		case !refusal.passing():
			wait += refusedRetry << min(failures, 4)
		case refusal.after > 0:
			wait += min(refusal.after, longestFeedRetry)
		}
	}
	return wait
}

var (
	errSilent    = errors.New("nothing was heard for too long")
	errSuspended = errors.New("the machine was suspended, or its clock was set")
	errTimeline  = errors.New("the feed went over to another timeline")
	errUnasked   = errors.New("the feed began without a snapshot")
	errAnew      = errors.New("a snapshot is wanted")
)

// stream opens the feed where the last one ended and hears it to its end.
func (f *follower) stream() error {
	ctx, cancel := context.WithCancelCause(f.ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(max(feedTimeout, f.silence), func() { cancel(errSilent) })
	defer watchdog.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Accept-Encoding", "identity") // what compresses holds back
	req.Header.Set("Cache-Control", "no-cache")
	f.authorize(req)
	from := f.position()
	if f.anew {
		from = feed.Position{}
	}
	if from != (feed.Position{}) {
		req.Header.Set("Last-Event-ID", from.String())
	}
	if f.age.begin() {
		f.woke()
	}
	f.cut.Store(&cancel)
	res, err := f.client.Do(req)
	if err != nil {
		return causeOf(ctx, err)
	}
	defer res.Body.Close()
	// Whatever HTTPClient has put around the body may not know of ctx.
	defer context.AfterFunc(ctx, func() { _ = res.Body.Close() })()
	if err := f.accepted(res); err != nil {
		return err
	}
	h := hearing{follower: f, whole: from != (feed.Position{})}
	h.last, _ = f.age.read()
	h.calm = h.last
	reader := feed.NewReader(res.Body)
	reader.KeepForeign = f.tap != nil
	for {
		frame, err := reader.Next()
		if err != nil {
			err = causeOf(ctx, err)
			if errors.Is(err, errSilent) {
				f.silence = min(2*f.silence, longestSilence)
			}
			return err
		}
		watchdog.Reset(f.silence)
		h.listen()
		if f.age.suspended() {
			return errSuspended // begin tells the rest
		}
		if err := h.take(frame); err != nil {
			return err
		}
	}
}

func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// accepted looks at the head of the answer.
func (f *follower) accepted(res *http.Response) error {
	if res.StatusCode != http.StatusOK {
		e := &feedRefusal{status: res.StatusCode}
		if s, err := strconv.ParseUint(res.Header.Get("Retry-After"), 10, 16); err == nil {
			e.after = time.Duration(s) * time.Second
		}
		f.doubt(e)
		return e
	}
	f.behind = 0
	mediaType, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || mediaType != "text/event-stream" {
		return fmt.Errorf("the answer is %q, not text/event-stream", mediaType)
	}
	return nil
}

// doubt gives up our place in the feed when every node says for long that it
// is not as far as we are: the store may have lost what we have heard. What is
// retained now is then told from the start; what we know stays known.
func (f *follower) doubt(e *feedRefusal) {
	now, _ := f.age.read()
	switch {
	case e.status != http.StatusServiceUnavailable:
		f.behind = 0
	case f.behind == 0:
		f.behind = now
	case now-f.behind > behindFor:
		f.behind = 0
		f.setPosition(feed.Position{})
	}
}

func (f *follower) position() feed.Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pos
}

func (f *follower) setPosition(pos feed.Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pos = pos
}

// resume goes on from a cache file that was right at a time of the wall clock.
func (f *follower) resume(pos feed.Position, at time.Time) {
	f.mu.Lock()
	f.pos, f.at = pos, at.UnixMilli()
	f.mu.Unlock()
	f.heard.Store(true)
	if f.tap != nil {
		f.anew = true // the file holds nothing that this version does not know
		f.tap.Resume(pos)
	}
}

// told is the place up to which the table holds everything, and the time of
// the wall clock, in Unix milliseconds, at which the store had no more. 0: never.
func (f *follower) told() (position string, at int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if age, ok := f.age.age(); ok {
		f.at = f.clock().Add(-age).UnixMilli()
	}
	if f.pos != (feed.Position{}) {
		position = f.pos.String()
	}
	return position, f.at
}

// keepCache writes the cache file from time to time, and never for long.
func (f *follower) keepCache() {
	timer := time.NewTimer(saveEvery)
	defer timer.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		if f.stats.connected.Load() {
			f.keys.saveCache()
		}
		timer.Reset(max(saveEvery, 50*time.Since(began)))
	}
}

// interrupt ends the present stream.
func (f *follower) interrupt(cause error) {
	if cut := f.cut.Load(); cut != nil {
		(*cut)(cause)
	}
}

// serve lets the verifier answer once all that is retained has been heard and
// keys are here that are not older than the feed's.
func (f *follower) serve() {
	if f.heard.Load() && !f.keys.outdated() {
		f.once.Do(func() { close(f.begun) })
	}
}

func (f *follower) ready() bool {
	select {
	case <-f.begun:
		return true
	default:
		return false
	}
}

// follow makes the verifier one that follows a feed.
func (v *Verifier) follow(f *follower) {
	f.keys.feed = f
	f.woke = v.watches.lookAll
	v.checks.age = f.age
	v.feedAge = func() (time.Duration, bool) {
		age, ok := f.age.age()
		if !ok && f.age.suspended() {
			f.interrupt(errSuspended)
		}
		return age, ok
	}
}

// complain logs what ended a stream: at first in passing, as streams end with
// every new version of the authority, and the more seldom the longer it lasts.
func (f *follower) complain(err error, failures int) {
	var refusal *feedRefusal
	level := slog.LevelInfo
	if failures > 2 || errors.As(err, &refusal) && !refusal.passing() {
		level = slog.LevelWarn
	}
	if failures > 8 && failures%8 != 0 {
		level = slog.LevelDebug
	}
	age, known := f.age.age()
	attrs := []any{"url", f.url, "error", err}
	if known {
		attrs = append(attrs, "feed_age", age.Round(time.Millisecond))
	}
	if !f.ready() {
		attrs = append(attrs, "consequence", "tokens are answered with 503 until the feed has been heard once")
	}
	f.log.Log(f.ctx, level, "the feed of revocations is cut off", attrs...)
}
