package relay

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

const (
	// behind is the age from which on another address is tried, if there is one.
	behind = 3 * time.Second
	// settle is how long an address that was changed to is given to do better.
	settle = 10 * time.Second
	// deepest is the level at which relays most likely follow one another in a circle.
	deepest = 16
)

// hub stands between the follower and the server: what the one has taken, the
// other serves.
type hub struct {
	server *feed.Server
	up     *upstream
	log    *slog.Logger
	level  atomic.Int64
	keys   atomic.Pointer[feed.KeySet]
	table  atomic.Pointer[revoked.Table]

	// Of the goroutine that hears.
	pos     feed.Position
	moved   time.Time // when another address was tried last
	circled time.Time // when a circle was complained of

	mu      sync.Mutex
	foreign map[string]time.Time // entries of kinds that this version does not know, and when they came
	whole   time.Time            // when the last snapshot came
}

func newHub(up *upstream, log *slog.Logger) *hub {
	h := &hub{up: up, log: log, foreign: make(map[string]time.Time)}
	h.level.Store(1)
	return h
}

func (h *hub) keyVersion() int64 {
	if k := h.keys.Load(); k != nil {
		return k.Version
	}
	return 0
}

// longest is how long an entry may be needed.
func (h *hub) longest() time.Duration {
	const margin = 15 * time.Second
	if k := h.keys.Load(); k != nil {
		return k.Longest + margin
	}
	return time.Hour + margin
}

// snapshot is all that is in force, what this version does not know included.
func (h *hub) snapshot() []revoked.Entry {
	entries := h.table.Load().Snapshot()
	h.mu.Lock()
	defer h.mu.Unlock()
	for text := range h.foreign {
		entries = append(entries, revoked.Entry{Kind: revoked.Foreign, ID: text})
	}
	return entries
}

// Open is of [feed.Tap], as are those that follow.
func (h *hub) Open(table *revoked.Table) { h.table.Store(table) }

// Keys takes a key set that was installed.
func (h *hub) Keys(k feed.KeySet) {
	k.Document, k.Discovery = slices.Clone(k.Document), slices.Clone(k.Discovery)
	h.keys.Store(&k)
}

// Resume serves what an earlier run has left. How old that is by now, only a
// wall clock could say, and nobody vouches for it.
func (h *hub) Resume(pos feed.Position) {
	if pos.Timeline == 0 {
		return
	}
	h.pos = pos
	h.server.Begin(pos, pos.Seq, time.Now().Add(-feed.UnknownAge))
}

// Snapshot starts over: what was missed lies between this and what came before.
func (h *hub) Snapshot(pos feed.Position, high int64, foreign []revoked.Entry) {
	now := time.Now()
	h.mu.Lock()
	clear(h.foreign)
	h.keep(foreign, now)
	h.whole = now
	h.mu.Unlock()
	h.pos = pos
	h.server.Begin(pos, high, time.Time{})
}

// Live passes on what has come.
func (h *hub) Live(pos feed.Position, high int64, entries []revoked.Entry) {
	h.mu.Lock()
	h.keep(entries, time.Now())
	h.mu.Unlock()
	high = max(high, pos.Seq)
	for i := range entries {
		// What position each has is not told. None has one above this.
		entries[i].Position = high
	}
	h.pos = pos
	h.server.Publish(pos, entries, time.Time{})
}

func (h *hub) keep(entries []revoked.Entry, now time.Time) {
	for _, e := range entries {
		if e.Kind == revoked.Foreign {
			h.foreign[e.ID] = now
		}
	}
}

// Beat passes on how old everything is, at once: what it is old by counts on
// here by the monotonic clock.
func (h *hub) Beat(b feed.Beat, age time.Duration, known bool) (startOver bool) {
	now := time.Now()
	h.level.Store(min(b.Level, 1<<20) + 1)
	if known {
		h.server.Publish(h.pos, nil, now.Add(-age))
	}
	h.server.Beat()
	if b.Level >= deepest && now.Sub(h.circled) > time.Minute {
		h.circled = now
		h.log.Warn("relays seem to follow one another in a circle: what comes has passed so many", "relays", b.Level)
	}
	if known && age > behind && now.Sub(h.moved) > settle && h.up.moveOn() {
		h.moved = now
		h.log.Warn("what is followed is behind: another address is tried", "feed_age", age.Round(time.Millisecond), "next", h.up.where())
	}
	return h.outlived(now)
}

// outlived reports whether a snapshot has to tell which entries of unknown
// kinds are still in force. Nothing here knows when one leaves.
func (h *hub) outlived(now time.Time) bool {
	longest := h.longest()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.foreign) == 0 || now.Sub(h.whole) < longest {
		return false
	}
	for _, came := range h.foreign {
		if now.Sub(came) > longest {
			return true
		}
	}
	return false
}
