package verify

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxFeedChecks is how many live checks are under way at a time because the
	// feed is too old: an authority that has lost its verifiers is not to meet
	// all their traffic.
	maxFeedChecks = 64
	// maxFeedAnswers is how many answers are kept; each takes about 200 bytes.
	maxFeedAnswers = 1 << 16
)

var errTooManyChecks = errors.New("the feed is too old, and too many live checks are under way")

// feedChecks makes live checks in place of a feed that is too old, one at a time
// for a token, and remembers the answers. A good answer is as good as a feed of
// the age that has passed since the question; a refusal is for good.
type feedChecks struct {
	age   *feedAge // for its clock
	slots chan struct{}
	made  atomic.Uint64

	mu      sync.Mutex
	flights map[string]*feedFlight // by jti
	answers map[string]feedAnswer  // by jti
}

type feedFlight struct {
	done   chan struct{}
	answer feedAnswer // set before done is closed
}

type feedAnswer struct {
	err     error // nil, or why the token is refused
	asked   time.Duration
	expires int64 // Unix seconds: when the token is dead anyway
}

func newFeedChecks(age *feedAge) *feedChecks {
	return &feedChecks{
		age: age, slots: make(chan struct{}, maxFeedChecks),
		flights: make(map[string]*feedFlight), answers: make(map[string]feedAnswer),
	}
}

// holds reports whether the answer speaks for the present, as a feed of at
// most maxAge would.
func (a feedAnswer) holds(now, maxAge time.Duration) bool {
	return a.err == nil && now-a.asked <= maxAge || refused(a.err)
}

// refused tells refusals, which no later answer takes back, from failures.
func refused(err error) bool { return err != nil && !errors.Is(err, ErrUnavailable) }

// check asks whether the token holds, unless that was asked at most maxAge ago.
func (f *feedChecks) check(ctx context.Context, v *Verifier, token string, c *Claims, maxAge time.Duration) error {
	for {
		now, _ := f.age.read()
		f.mu.Lock()
		if a, ok := f.answers[c.ID]; ok && a.holds(now, maxAge) {
			f.mu.Unlock()
			return a.err
		}
		flight, joined := f.flights[c.ID]
		if !joined {
			flight = &feedFlight{done: make(chan struct{})}
			f.flights[c.ID] = flight
			go f.fly(context.WithoutCancel(ctx), v, token, c, flight)
		}
		f.mu.Unlock()
		select {
		case <-flight.done:
		case <-ctx.Done():
			return because(ErrUnavailable, fmt.Errorf("live check: %w", ctx.Err()))
		}
		// A flight that was joined may have asked too long ago.
		now, _ = f.age.read()
		if !joined || flight.answer.err != nil || flight.answer.holds(now, maxAge) {
			return flight.answer.err
		}
	}
}

func (f *feedChecks) fly(ctx context.Context, v *Verifier, token string, c *Claims, flight *feedFlight) {
	answer := feedAnswer{expires: c.ExpiresAt.Unix()}
	timer := time.NewTimer(v.liveTimeout)
	defer timer.Stop()
	select {
	case f.slots <- struct{}{}:
		answer.asked, _ = f.age.read()
		f.made.Add(1)
		answer.err = v.live(ctx, token, c)
		<-f.slots
	case <-timer.C:
		answer.err = because(ErrUnavailable, errTooManyChecks)
	}
	flight.answer = answer
	f.mu.Lock()
	delete(f.flights, c.ID)
	if answer.err == nil || refused(answer.err) {
		f.keep(c.ID, answer, v.clock().Unix())
	}
	f.mu.Unlock()
	close(flight.done)
}

// keep remembers an answer until its token is dead. When there are too many,
// those of dead tokens go, and any others where that is not enough: what is
// forgotten is asked again.
func (f *feedChecks) keep(id string, answer feedAnswer, now int64) {
	if len(f.answers) >= maxFeedAnswers {
		for id, a := range f.answers {
			if now > a.expires+int64(leeway/time.Second) {
				delete(f.answers, id)
			}
		}
		for id := range f.answers {
			if len(f.answers) <= maxFeedAnswers*3/4 {
				break
			}
			delete(f.answers, id)
		}
	}
	f.answers[id] = answer
}

// fresh reports whether the feed has told everything up to maxAge ago.
func (v *Verifier) fresh(maxAge time.Duration) bool {
	if v.feedAge == nil {
		return false
	}
	age, ok := v.feedAge()
	return ok && age <= maxAge
}
