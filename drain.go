package counterfoil

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/verify"
)

// ErrDraining says that this node is about to end and serves no longer than it
// takes others to notice.
var ErrDraining = errors.New("this node is being stopped")

// Drain prepares the end of this node while others go on. From now on
// [Authority.Ready] fails, so that load balancers send nothing new. In the
// second half of d, feeds and watches are ended one after the other, whose
// readers come again elsewhere. All calls are served meanwhile. It returns
// after d, or when ctx ends; then shut the HTTP server down, and [Authority.Close].
func (a *Authority) Drain(ctx context.Context, d time.Duration) {
	a.draining.Store(true)
	noticed := time.NewTimer(d / 2)
	defer noticed.Stop()
	select {
	case <-ctx.Done():
		return
	case <-noticed.C:
	}
	watches := a.watches.list()
	a.done.Go(func() { a.follower.server.Drain(ctx, d/2) })
	feed.Spread(ctx, d/2, len(watches), func(i int) { watches[i].dismiss() })
}

// Draining reports whether [Authority.Drain] was called.
func (a *Authority) Draining() bool { return a.draining.Load() }

func (a *Authority) drained() error {
	if a.draining.Load() {
		return fmt.Errorf("%w: %w", verify.ErrUnavailable, ErrDraining)
	}
	return nil
}

// list returns the watches that there are.
func (s *sessionWatches) list() (all []*SessionWatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, watches := range s.sessions {
		for w := range watches {
			all = append(all, w)
		}
	}
	return all
}

// dismiss ends a watch as Close does.
func (w *SessionWatch) dismiss() {
	w.dismissed.Store(true)
	w.ring()
}
