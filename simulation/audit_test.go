package simulation

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

const (
	// recovery is how long it may take until everything is well again after
	// everything was mended: the longest pauses between attempts.
	recovery = 90 * time.Second
	// staleness is how old the knowledge of a healthy verifier may be.
	staleness = 200 * time.Millisecond
	// lag is how long a revocation may take to a healthy verifier.
	lag = 100 * time.Millisecond
)

// mend ends all that is wrong, and waits until everything works.
func (w *world) mend(ctx context.Context) {
	w.note("everything is mended")
	for _, n := range w.nodes {
		for _, host := range w.hosts() {
			w.net.set(host, n.name, func(l *way) { l.latency, l.held, l.cut = usualLatency, false, false })
		}
		w.revive(n)
		n.faults(func(s *nodeStore) { s.cut, s.slow, s.flaky, s.lossy, s.pause, s.late = false, 0, 0, 0, 0, 0 })
	}
	w.setStoreClock(0)
	for _, s := range w.services {
		s.set(func(s *service) { s.stale, s.cursor = false, "" })
		w.restart(s)
	}
	deadline := time.Now().Add(recovery)
	for {
		wrong := w.unwell(ctx)
		if wrong == "" {
			w.note("everything is well")
			return
		}
		if time.Now().After(deadline) {
			w.fail(2, "%s after everything was mended: %s", recovery, wrong)
			return
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			return
		}
	}
}

func (w *world) unwell(ctx context.Context) string {
	for _, n := range w.nodes {
		auth, _ := n.process()
		if err := auth.Ready(ctx); err != nil {
			return n.name + " is not ready: " + err.Error()
		}
	}
	for _, s := range w.services {
		v, _, _ := s.get()
		stats := v.Stats()
		switch {
		case !v.Ready():
			return s.name + " is not ready"
		case !stats.Connected || !stats.FeedAgeKnown || stats.FeedAge > staleness:
			return fmt.Sprintf("%s does not follow the feed closely: %+v", s.name, stats)
		case stats.KeyVersion < w.db.keyVersion():
			return s.name + " has not the newest keys"
		}
	}
	return ""
}

// audit checks that everything has come right.
func (w *world) audit(ctx context.Context) {
	// What was under way when things were mended has had its time.
	_ = sleep(ctx, 11*time.Second)
	if wrong := w.unwell(ctx); wrong != "" {
		w.fail(2, "in good times: %s", wrong)
		return
	}
	w.auditTokens(ctx)
	for i, b := range w.browsers {
		n := w.nodes[i%len(w.nodes)]
		b.stranded()
		b.mu.Lock()
		have := b.jar != ""
		b.mu.Unlock()
		if !have {
			b.signIn(ctx, w.dice, n)
		}
		t := b.refresh(ctx, n)
		if t == nil {
			b.mu.Lock()
			have = b.jar != ""
			b.mu.Unlock()
			if have && ctx.Err() == nil {
				w.fail(3, "in good times %s gets no access token from %s", b.name, n.name)
			}
			continue // it had ended, which refresh has checked
		}
		for _, s := range w.services {
			for _, r := range routes {
				if err := w.decide(ctx, s, t, r); err != nil && w.clean(t) && ctx.Err() == nil {
					w.fail(2, "in good times %s refuses a fresh token on %s: %v", s.name, r.name, err)
				}
			}
		}
		if i%2 == 0 {
			w.changeRights(ctx, b.user, n)
		} else {
			b.signOut(ctx, n, "this")
		}
		_ = sleep(ctx, lag)
		for _, s := range w.services {
			v, check, _ := s.get()
			if _, err := check.Check(ctx, t.text); err == nil && ctx.Err() == nil {
				w.fail(1, "in good times %s accepts a token %s after its end: %+v", s.name, lag, v.Stats())
			} else if i%2 == 0 && w.clean(t) && !errors.Is(err, verify.ErrTokenStale) {
				w.fail(4, "in good times %s answers a token of old rights with %v", s.name, err)
			}
		}
		if i%2 == 0 {
			if t = b.refresh(ctx, n); t != nil && w.clean(t) && w.decide(ctx, w.services[0], t, routes[0]) != nil {
				w.fail(4, "in good times one refresh does not mend a stale token of %s", b.name)
			}
		}
	}
}

// clean reports whether nothing can have ended the token's session.
func (w *world) clean(t *token) bool {
	w.model.mu.Lock()
	defer w.model.mu.Unlock()
	return !w.model.mayHaveEnded(t.session, time.Now())
}

// auditTokens shows all tokens to everybody.
func (w *world) auditTokens(ctx context.Context) {
	w.model.mu.Lock()
	tokens := slices.Clone(w.model.tokens[max(0, len(w.model.tokens)-50):])
	w.model.mu.Unlock()
	for _, t := range tokens {
		if time.Since(t.exp) > leeway {
			continue
		}
		for _, s := range w.services {
			_ = w.decide(ctx, s, t, routes[0])
		}
		w.model.mu.Lock()
		dead, why := w.model.refusedBy(t)
		w.model.mu.Unlock()
		if dead.IsZero() || time.Since(dead) < lag {
			continue
		}
		for _, n := range w.nodes {
			auth, _ := n.process()
			if _, err := local(auth).Check(ctx, t.text); err == nil {
				w.fail(5, "in good times %s accepts a token of %s; %s %s before", n.name, short(t.session.sid), why, time.Since(dead))
			}
		}
	}
}

// patient is a request that waits as long as its context.
func (w *world) patient(ctx context.Context, c *http.Client, method, url string, header map[string]string, in any) (*answer, error) {
	return w.request(context.WithValue(ctx, patience{}, true), c, method, url, header, in)
}

type patience struct{}
