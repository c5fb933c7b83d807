//go:build linux

package faults

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

const (
	// feedBound is the rule of a route that must hear of revocations.
	feedBound = 500 * time.Millisecond
	// tokenLife is how long access tokens are sure to live.
	tokenLife = 50 * time.Second
)

// watcher is a verifier in a service of its own, and requests that it checks.
type watcher struct {
	s        *system
	name     string
	verifier *verify.Verifier
	plain    func(context.Context, string) (*verify.Claims, error)
	strict   func(context.Context, string) (*verify.Claims, error)
}

// watch starts a verifier that follows the authority at the address, and
// requests to it.
func (s *system) watch(authority string) *watcher {
	s.t.Helper()
	v, err := verify.New(s.t.Context(), verify.Config{
		Issuer: issuer, Audience: "app", Authority: authority, APIKey: s.key,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := v.Close(); err != nil {
			s.t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	if err := v.Wait(ctx); err != nil {
		s.t.Fatal(err)
	}
	w := &watcher{s: s, name: "the verifier at " + authority, verifier: v, plain: v.Checker(), strict: v.Checker(verify.MaxFeedAge(feedBound))}
	s.watchers = append(s.watchers, w)
	random := rand.New(rand.NewPCG(s.random.Uint64(), 0))
	s.watching.Go(func() { w.run(random) })
	return w
}

// run checks tokens of good and of ended sessions until the end.
func (w *watcher) run(random *rand.Rand) {
	for !w.s.stopped(w.s.hard) {
		of := w.s.oracle.some(random.IntN(300))
		if random.IntN(2) == 0 {
			of = w.s.oracle.lastRevoked(random.IntN(30))
		}
		if of != nil {
			w.check(of)
		}
		pause(w.s.hard, time.Duration(1+random.IntN(int(2*time.Millisecond))))
	}
}

// check sends requests with the session's tokens, and judges what becomes of them.
func (w *watcher) check(of *session) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tokens, _, revoked := w.s.oracle.state(of)
	for _, token := range tokens {
		// In this order: what a verifier claims to know at a later time holds
		// for an earlier one all the more.
		began := time.Now()
		stats := w.verifier.Stats()
		_, err := w.plain(ctx, token.token)
		w.judge(of, token, began, revoked, stats.FeedAge, stats.FeedAgeKnown, err, false)

		began = time.Now()
		_, err = w.strict(ctx, token.token)
		w.judge(of, token, began, revoked, feedBound, true, err, true)
	}
}

func (w *watcher) judge(of *session, token access, began, revoked time.Time, age time.Duration, known bool, err error, mayBeUnavailable bool) {
	o := w.s.oracle
	switch {
	case err == nil:
		if !revoked.IsZero() {
			o.accepted(w.name, of, began, revoked, age, known)
		}
	case errors.Is(err, verify.ErrUnavailable):
		if !mayBeUnavailable {
			o.problem("%s: a route without rules is unavailable: %v", w.name, err)
		}
	default:
		if _, revoking, _ := o.state(of); revoking.IsZero() && time.Since(token.got) < tokenLife && !o.mayBeLost(of) {
			o.problem("%s refuses a token of session %s, which nobody ended: %v", w.name, of.sid, err)
		}
	}
}

// settle waits until every verifier refuses every token of every revoked session.
func (s *system) settle() {
	s.t.Helper()
	var left []*session
	for _, of := range s.oracle.all() {
		if _, _, revoked := s.oracle.state(of); !revoked.IsZero() {
			left = append(left, of)
		}
	}
	for _, w := range s.watchers {
		at := 0
		s.wait(w.name+" refuses what was revoked", patience, func() bool {
			for ; at < len(left); at++ {
				tokens, _, _ := s.oracle.state(left[at])
				for _, token := range tokens {
					if _, err := w.plain(s.t.Context(), token.token); err == nil || errors.Is(err, verify.ErrUnavailable) {
						return false
					}
				}
			}
			return true
		})
	}
}
