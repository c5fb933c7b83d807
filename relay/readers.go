package relay

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/verify"
)

const (
	// goodFor is how long an API key counts as good from when the authority
	// said so. Readers that follow are looked at a little earlier.
	goodFor   = time.Minute
	lookAfter = 50 * time.Second
	lookEvery = 10 * time.Second
	// badFor is how long one counts as bad.
	badFor = 5 * time.Second
	// goodWithout is how long a good one counts as good while nobody can be
	// asked. It is as long as keys to verify with are.
	goodWithout = maxKeyAge
	// againAfter is how long nobody is asked again in vain.
	againAfter = time.Second
	saveSoon   = 200 * time.Millisecond // after news, which come in swarms
	// maxVouches is how many questions are under way at a time.
	maxVouches = 32
	// maxReaders bounds the API keys that are remembered; 150 bytes each.
	maxReaders = 1 << 14
)

// keyHash stands for an API key, whose secret part is 256 random bits.
type keyHash [sha256.Size]byte

// readers knows which API keys are good, as of when the authority was asked.
type readers struct {
	issuer string
	vouch  func(ctx context.Context, authorize func(*http.Request)) (age time.Duration, err error)
	file   string // empty: none
	log    *slog.Logger
	slots  chan struct{}

	good, bad, failed atomic.Uint64 // answers

	ctx    context.Context // ends with close
	cancel context.CancelFunc
	ended  sync.WaitGroup
	news   chan struct{} // a key was found good that was not known

	mu      sync.Mutex
	known   map[keyHash]*reader
	failure time.Time // when nobody could be asked
	changed bool      // since the file was written
}

// reader is what is known of one API key. The lock of readers guards it.
type reader struct {
	err       error               // why it is bad; nil: it is good
	asked     time.Time           // when the authority said so; zero: never
	heard     time.Time           // when that came here
	flight    *flight             // nil: none
	authorize func(*http.Request) // while streams are open
	streams   map[*follow]struct{}
}

// follow is a stream that ends when its key is bad.
type follow struct{ end context.CancelFunc }

func newReaders(issuer string, vouch func(context.Context, func(*http.Request)) (time.Duration, error), file string, log *slog.Logger) *readers {
	r := &readers{issuer: issuer, vouch: vouch, file: file, log: log, slots: make(chan struct{}, maxVouches),
		news: make(chan struct{}, 1), known: make(map[keyHash]*reader)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.load()
	return r
}

func (r *readers) start() { r.ended.Go(r.run) }

func (r *readers) close() error {
	r.cancel()
	r.ended.Wait()
	return r.save()
}

// elapsed is by the clock that ran on while a machine was suspended too.
func elapsed(now, then time.Time) time.Duration {
	return max(now.Sub(then), now.Round(0).Sub(then.Round(0)))
}

// fresh reports whether the answer need not be asked for again.
func (e *reader) fresh(now time.Time) bool {
	if e.asked.IsZero() {
		return false
	}
	if e.err != nil {
		return elapsed(now, e.asked) < badFor
	}
	return elapsed(now, e.asked) < goodFor
}

// serves reports whether the answer serves while nobody can be asked.
func (e *reader) serves(now time.Time) bool {
	return e.err == nil && !e.asked.IsZero() && elapsed(now, e.asked) < goodWithout
}

// credential is the API key of a request.
func credential(r *http.Request) (hash keyHash, authorize func(*http.Request), err error) {
	text, err := bearer(r)
	if err != nil {
		return hash, nil, err
	}
	return sha256.Sum256([]byte(text)), func(out *http.Request) { out.Header.Set("Authorization", "Bearer "+text) }, nil
}

// flight is a question that is under way.
type flight struct {
	done chan struct{}
	age  time.Duration // set before done is closed, as err is
	err  error
}

// check returns nil when the API key is good, and how long ago the authority
// said so; otherwise an error of package verify.
func (r *readers) check(ctx context.Context, hash keyHash, authorize func(*http.Request)) (age time.Duration, err error) {
	return r.look(ctx, hash, authorize, false)
}

// look is check; with anew an answer that is still fresh does not do.
func (r *readers) look(ctx context.Context, hash keyHash, authorize func(*http.Request), anew bool) (time.Duration, error) {
	r.mu.Lock()
	now := time.Now()
	e := r.known[hash]
	// Nobody is asked again for a moment where nobody answered, or somebody who
	// could not ask either.
	inVain := now.Sub(r.failure) < againAfter
	if e != nil && (e.fresh(now) && !anew || (inVain || now.Sub(e.heard) < againAfter) && e.serves(now)) {
		defer r.mu.Unlock()
		return elapsed(now, e.asked), e.err
	}
	if inVain {
		r.mu.Unlock()
		return 0, verify.ErrUnavailable
	}
	if e == nil {
		r.makeRoom(now)
		e = &reader{}
		r.known[hash] = e
	}
	f := e.flight
	if f == nil {
		f = &flight{done: make(chan struct{})}
		e.flight = f
		// It outlives the request that asks, for the others' sake.
		r.ended.Go(func() { r.fly(hash, e, f, authorize) })
	}
	r.mu.Unlock()
	select {
	case <-f.done:
		return f.age, f.err
	case <-ctx.Done():
		return 0, verify.ErrUnavailable
	}
}

func (r *readers) fly(hash keyHash, e *reader, f *flight, authorize func(*http.Request)) {
	var age time.Duration
	err := context.Canceled
	asked := time.Now()
	select {
	case r.slots <- struct{}{}: // when a thousand come at once, most wait
		asked = time.Now()
		age, err = r.vouch(r.ctx, authorize)
		<-r.slots
	case <-r.ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer close(f.done)
	e.flight = nil
	now := time.Now()
	var refused *verify.Error
	switch {
	case err == nil:
		r.good.Add(1)
		if e.asked.IsZero() || e.err != nil {
			select {
			case r.news <- struct{}{}:
			default:
			}
		}
		e.err, e.asked, e.heard, r.changed = nil, asked.Add(-age), now, true
		f.age = elapsed(now, e.asked)
		if !e.serves(now) { // a chain of those who cannot ask does not go on for ever
			f.err = verify.ErrUnavailable
		}
	case errors.As(err, &refused):
		r.bad.Add(1)
		r.changed = r.changed || e.err == nil && !e.asked.IsZero()
		e.err, e.asked, e.heard, f.err = err, asked, now, err
		for s := range e.streams {
			s.end()
		}
	default:
		r.failed.Add(1)
		r.failure = now
		if f.age = elapsed(now, e.asked); !e.serves(now) {
			f.err = verify.ErrUnavailable
		}
		if e.asked.IsZero() {
			delete(r.known, hash)
		}
	}
}

// makeRoom forgets a few that nobody uses when there are too many.
func (r *readers) makeRoom(now time.Time) {
	if len(r.known) < maxReaders {
		return
	}
	for hash, e := range r.known {
		if e.flight == nil && len(e.streams) == 0 && !e.fresh(now) {
			delete(r.known, hash)
		}
	}
	for hash, e := range r.known {
		if len(r.known) < maxReaders*3/4 {
			return
		}
		if e.flight == nil && len(e.streams) == 0 {
			delete(r.known, hash)
		}
	}
}

// follow returns a context that ends when the API key is found bad.
func (r *readers) follow(ctx context.Context, hash keyHash, authorize func(*http.Request)) (context.Context, func()) {
	ctx, end := context.WithCancel(ctx)
	s := &follow{end}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.known[hash]
	if e == nil || e.err != nil { // it was found bad, or forgotten, since it was checked
		end()
		return ctx, end
	}
	if e.streams == nil {
		e.streams = make(map[*follow]struct{})
	}
	e.streams[s], e.authorize = struct{}{}, authorize
	return ctx, func() {
		end()
		r.mu.Lock()
		defer r.mu.Unlock()
		if delete(e.streams, s); len(e.streams) == 0 {
			e.authorize = nil
		}
	}
}

// run looks again at the keys of readers that follow, and keeps the file.
// While nobody can be asked, streams go on.
func (r *readers) run() {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	saving := time.NewTimer(saveSoon)
	defer saving.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.news:
			saving.Reset(saveSoon)
			continue
		case <-saving.C:
			r.keep()
			continue
		case <-ticker.C:
		}
		now := time.Now()
		due := make(map[keyHash]func(*http.Request))
		r.mu.Lock()
		for hash, e := range r.known {
			if len(e.streams) > 0 && elapsed(now, e.asked) >= lookAfter {
				due[hash] = e.authorize
			}
		}
		r.mu.Unlock()
		r.lookAll(due)
		r.keep()
	}
}

// lookAll looks at many keys, some at a time: one after the other a thousand
// would take longer than an answer counts.
func (r *readers) lookAll(due map[keyHash]func(*http.Request)) {
	var asking sync.WaitGroup
	defer asking.Wait()
	var inVain atomic.Bool
	lanes := make(chan struct{}, maxVouches)
	for hash, authorize := range due {
		lanes <- struct{}{}
		if inVain.Load() {
			return // the others can wait too
		}
		asking.Go(func() {
			// What is found is kept, and ends the streams of one that is bad.
			if _, err := r.look(r.ctx, hash, authorize, true); errors.Is(err, verify.ErrUnavailable) {
				inVain.Store(true)
			}
			<-lanes
		})
	}
}

func (r *readers) keep() {
	if err := r.save(); err != nil {
		r.log.Warn("the file of readers' API keys could not be written", "file", r.file, "error", err)
	}
}

// bearer takes an API key out of a request. One that cannot be one is refused
// here: it costs nobody a question.
func bearer(r *http.Request) (string, error) {
	values := r.Header["Authorization"]
	if len(values) > 1 {
		return "", verify.ErrCredentialAmbiguous
	}
	if len(values) == 0 || len(values[0]) < len("Bearer ") || !strings.EqualFold(values[0][:len("Bearer ")], "Bearer ") {
		return "", verify.ErrCredentialMissing
	}
	text := strings.Trim(values[0][len("Bearer "):], " ")
	if _, err := opaque.Parse(opaque.APIKey, text); err != nil {
		return "", verify.ErrTokenInvalid
	}
	return text, nil
}
