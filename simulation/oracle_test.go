package simulation

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

// route is a route of a service, with what it promises.
type route struct {
	name   string
	rules  []verify.Rule
	feed   time.Duration // MaxFeedAge
	age    time.Duration // MaxTokenAge
	asking bool          // Live
}

var routes = []*route{
	{name: "default"},
	{name: "MaxFeedAge", rules: []verify.Rule{verify.MaxFeedAge(500 * time.Millisecond)}, feed: 500 * time.Millisecond},
	{name: "Live", rules: []verify.Rule{verify.Live()}, asking: true},
	{name: "MaxTokenAge", rules: []verify.Rule{verify.MaxTokenAge(10 * time.Second)}, age: 10 * time.Second},
}

const (
	leeway = 5 * time.Second
	// rounding is what ages and times of the feed are rounded by.
	rounding = 2 * time.Millisecond
)

// decide has a service decide about a token, and checks the decision. It
// returns the service's answer.
func (w *world) decide(ctx context.Context, s *service, t *token, r *route) error {
	v, check, run := s.get()
	if v == nil {
		return errDown
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ready, stats := v.Ready(), v.Stats()
	began := time.Now()
	_, err := check.Check(ctx, t.text, r.rules...)
	ended := time.Now()
	_, _, now := s.get()
	if ctx.Err() != nil || now != run {
		return err
	}
	w.decisions.Add(1)

	w.model.mu.Lock()
	defer w.model.mu.Unlock()
	if err == nil {
		w.checkAccepted(s, t, r, stats, began)
	} else if ready {
		w.checkRefused(s, t, r, stats, began, ended, err)
	}
	return err
}

// checkAccepted: what was accepted may have been dead for no longer than the
// route lets its knowledge be old.
func (w *world) checkAccepted(s *service, t *token, r *route, stats verify.Stats, began time.Time) {
	if !began.Add(s.skew).Before(t.exp.Add(leeway)) {
		w.fail(1, "%s accepted a token on %s that had expired %s before", s.name, r.name, began.Add(s.skew).Sub(t.exp))
	}
	if t.degraded && (r.asking || r.feed > 0) {
		w.fail(1, "%s accepted a token on %s that was minted from a copy", s.name, r.name)
	}
	dead, why := w.model.refusedBy(t)
	if dead.IsZero() {
		return
	}
	promise := 1
	if why == "the rights had changed" {
		promise = 4
	}
	since := began.Sub(dead)
	switch {
	case why == "its key had been revoked": // which a node learns from the log alone
	case r.asking, r.age > 0 && began.Add(s.skew).Sub(t.exp.Add(-lifetime*9/10)) > r.age+time.Second:
		if since > 0 {
			w.fail(promise, "%s accepted a token of %s after a live check (%s); %s %s before", s.name, short(t.session.sid), r.name, why, since)
		}
	case r.feed > 0:
		if since > r.feed+rounding {
			w.fail(promise, "%s accepted a token of %s on a route with MaxFeedAge(%s); %s %s before", s.name, short(t.session.sid), r.feed, why, since)
		}
	}
	if stats.FeedAgeKnown && since > stats.FeedAge+rounding {
		w.fail(promise, "%s accepted a token of %s on %s with a feed of age %s; %s %s before", s.name, short(t.session.sid), r.name, stats.FeedAge, why, since)
	}
}

// checkRefused: a running verifier lets in what nothing speaks against, without
// waiting for anybody.
func (w *world) checkRefused(s *service, t *token, r *route, stats verify.Stats, began, ended time.Time, err error) {
	if !w.model.good(t, ended) || t.skew > 2*time.Second || t.start.Before(w.restoredAt) {
		return
	}
	if r.name != "default" {
		if errors.Is(err, verify.ErrUnavailable) || errors.Is(err, verify.ErrTokenTooOld) || w.clocksOff(t.start) {
			return // a node whose clock is wrong answers live checks with a refusal
		}
		if w.degraded > 0 && errors.Is(err, verify.ErrTokenRevoked) {
			return // and so does one that is cut off for long, when the key is newer than all it knows
		}
		if came, known := w.db.cameWith(t.kid); !known || stats.KeyVersion < came {
			return
		}
		w.fail(2, "%s refused a good token of %s on %s: %v", s.name, short(t.session.sid), r.name, err)
		return
	}
	if came, known := w.db.cameWith(t.kid); !known || stats.KeyVersion < came {
		return // the key has not come to it yet
	}
	w.fail(2, "%s refused a good token of %s, %s old, with feed %+v: %v", s.name, short(t.session.sid), began.Sub(t.end), stats, err)
}

// clocksOff reports whether a clock was wrong since; the model's mu is held.
func (w *world) clocksOff(since time.Time) bool {
	for _, n := range w.nodes {
		if n.off() > 2*time.Second || !n.steadySince(since) {
			return true
		}
	}
	return !w.storeSince.Before(since)
}

// checkLocal: where a call was acknowledged, the verifiers know at once.
func (w *world) checkLocal(ctx context.Context, c *call, t *token) {
	n := c.at
	if n == nil {
		return
	}
	auth, run := n.process()
	if auth == nil || run != c.run {
		return
	}
	if _, err := local(auth).Check(ctx, t.text); err != nil {
		return
	}
	w.model.mu.Lock()
	defer w.model.mu.Unlock()
	// Other calls may have made it a token that must be dead; here it is only
	// about those that this process acknowledged.
	about := func(e *call) bool { return !e.ack.IsZero() && e.at == n && e.run == c.run }
	dead := false
	for _, e := range t.session.ends {
		if e.at == nil {
			return // lost with the database; ending it again ended nothing
		}
		dead = dead || about(e)
	}
	for _, e := range t.session.user.changes {
		if about(&e.call) && e.start.After(t.end) {
			dead = true
		}
	}
	if k := w.model.keys[t.kid]; k != nil && about(k) {
		dead = true
	}
	if dead {
		w.fail(1, "%s accepted a token of %s in the process that had acknowledged its end", n.name, short(t.session.sid))
	}
}

// checkMint: no token is made for what had ended, nor with rights or keys of before.
func (w *world) checkMint(n *node, t *token) {
	if at := w.model.endedBy(t.session); !at.IsZero() && at.Before(t.start) {
		w.fail(1, "%s minted for %s, %s after its end was acknowledged", n.name, short(t.session.sid), t.start.Sub(at))
	}
	if need := t.session.user.rightsBy(t.start); t.rights < need {
		w.fail(4, "%s minted for %s with rights %d; %d had been acknowledged", n.name, t.session.user.name, t.rights, need)
	}
	if k := w.model.keys[t.kid]; k != nil && k.acked(t.start) {
		w.fail(1, "%s minted with key %s, %s after it was revoked", n.name, short(t.kid), t.start.Sub(k.ack))
	}
	if t.off > leeway+time.Second && n.steadySince(t.start) && w.storeSince.Before(t.start) {
		w.fail(1, "%s minted with a clock %s from the store's", n.name, t.off)
	}
}

// checkEnd: only what was ended is told to have ended.
func (w *world) checkEnd(s *session, code string) {
	w.model.mu.Lock()
	defer w.model.mu.Unlock()
	if !w.model.mayHaveEnded(s, time.Now()) {
		w.fail(3, "session %s of %s was answered with %s though nobody ended it", short(s.sid), s.user.name, code)
	}
}

// visit calls a service as a page does: refused, it refreshes once and repeats.
func (b *browser) visit(ctx context.Context, dice *rand.Rand, s *service, n *node, r *route) {
	b.mu.Lock()
	t := b.token
	b.mu.Unlock()
	if t == nil || time.Until(t.exp) < lifetime/4 {
		if t = b.refresh(ctx, n); t == nil {
			return
		}
	}
	err := b.w.decide(ctx, s, t, r)
	if err == nil || !errors.Is(err, verify.ErrUnauthenticated) {
		return
	}
	if t = b.refresh(ctx, pick(dice, b.w.nodes)); t != nil {
		_ = b.w.decide(ctx, s, t, r) // a good token now, which decide checks
	}
}

// replay shows a service a token that somebody kept.
func (b *browser) replay(ctx context.Context, dice *rand.Rand, s *service, r *route) {
	b.w.model.mu.Lock()
	var dead, all []*token
	for _, t := range b.w.model.tokens[max(0, len(b.w.model.tokens)-60):] {
		if time.Since(t.exp) > 2*leeway {
			continue
		}
		all = append(all, t)
		if at, _ := b.w.model.refusedBy(t); !at.IsZero() {
			dead = append(dead, t)
		}
	}
	b.w.model.mu.Unlock()
	if len(dead) > 0 && dice.IntN(4) > 0 {
		all = dead
	}
	if len(all) > 0 {
		_ = b.w.decide(ctx, s, pick(dice, all), r)
	}
}
