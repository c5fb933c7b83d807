package feed

import (
	"context"
	"slices"
	"time"
)

// drainTick is how often streams are ended while a node is drained.
const drainTick = 10 * time.Millisecond

// Drain ends the streams that there are, spread evenly over d, so that their
// readers do not all come to other nodes at once. It returns after d, or when
// ctx ends. Streams that begin meanwhile are served: a reader that was sent
// here may have nowhere else to go.
func (s *Server) Drain(ctx context.Context, d time.Duration) {
	s.mu.Lock()
	streams := slices.Clone(s.round.streams)
	s.mu.Unlock()
	Spread(ctx, d, len(streams), func(i int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		st := streams[i]
		if st.ending = true; st.idle {
			st.idle = false
			st.wake <- struct{}{} // there is room: it was idle
		}
	})
}

// Spread calls fn for each of n, spread evenly over d. It returns after d, or
// when ctx ends.
func Spread(ctx context.Context, d time.Duration, n int, fn func(int)) {
	tick := time.NewTicker(drainTick)
	defer tick.Stop()
	began := time.Now()
	for i := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		gone := min(time.Since(began), d)
		for ; i < n && int64(i)*int64(d) < int64(n)*int64(gone); i++ {
			fn(i)
		}
		if gone == d {
			return
		}
	}
}
