package verify

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
)

// Stats tells how the verifier is doing, for metrics and health pages.
// Counters count from the start of the verifier.
type Stats struct {
	// Following tells whether the verifier hears of revocations at all: by
	// the feed, or in the authority's own process.
	Following bool
	// Connected tells whether a stream is open and beats.
	Connected bool
	// FeedAge is how old, at most, what the verifier knows of revocations is.
	// It counts back to the last full read of the authority's store. Without
	// FeedAgeKnown it is nothing: before the first connection, after the
	// machine was suspended, or without a feed.
	FeedAge      time.Duration
	FeedAgeKnown bool
	// EventLag bounds from above what the last revocations heard were under
	// way, from the authority's store to this table; 0 before the first.
	EventLag time.Duration
	// Position is the place in the feed, as its event ids have it; empty for none.
	Position string

	Events     uint64 // revocations put in force
	Skipped    uint64 // entries and events of a later version's kinds, passed over
	Snapshots  uint64 // complete snapshots heard
	Reconnects uint64 // streams that ended or failed
	FeedChecks uint64 // live checks made because of [MaxFeedAge]
	// Degraded counts requests with a token of degraded minting, refused or not.
	Degraded   uint64
	KeyVersion int64 // version of the key set in use; 0 in the authority's own process
	Watches    int   // contexts of [Watch] that have not ended
}

type feedStats struct {
	connected                         atomic.Bool
	lag                               atomic.Int64
	worst                             atomic.Int64 // of lag, since it was reported
	applied, skipped, snapshots, ends atomic.Uint64
}

// heard takes note of new revocations: none of them was told to the store
// before it was last known to be read.
func (s *feedStats) heard(age *feedAge) {
	if lag, ok := age.age(); ok {
		s.lag.Store(int64(lag))
		if s.worst.Load() < int64(lag) {
			s.worst.Store(int64(lag)) // there is one goroutine that hears
		}
	}
}

// report adds to a request for the clock what the operator of the authority
// should know of this verifier's lag.
func (s *feedStats) report(r *http.Request, age *feedAge) {
	lag := time.Duration(s.worst.Swap(0))
	if lag == 0 {
		var known bool
		if lag, known = age.age(); !known {
			return
		}
	}
	r.Header.Set(feed.LagHeader, strconv.FormatInt(max(0, lag.Milliseconds()), 10))
}

// Stats returns the present state. It is cheap enough for every scrape.
func (v *Verifier) Stats() Stats {
	var s Stats
	s.Following = v.feedAge != nil
	if s.Following {
		s.FeedAge, s.FeedAgeKnown = v.feedAge()
	}
	s.FeedChecks = v.checks.made.Load()
	s.Degraded = v.degraded.Load()
	s.Watches = v.watches.len()
	r, ok := v.keys.(*remoteKeys)
	if !ok {
		s.Connected = s.Following
		return s
	}
	if set := r.set.Load(); set != nil {
		s.KeyVersion = set.version
	}
	if f := r.feed; f != nil {
		s.Connected = f.stats.connected.Load()
		s.EventLag = time.Duration(f.stats.lag.Load())
		s.Events, s.Skipped = f.stats.applied.Load(), f.stats.skipped.Load()
		s.Snapshots, s.Reconnects = f.stats.snapshots.Load(), f.stats.ends.Load()
		if pos := f.position(); pos.Timeline != 0 {
			s.Position = pos.String()
		}
	}
	return s
}
