package verify

import (
	"fmt"
	"net/http"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// hearing is the state of one stream.
type hearing struct {
	*follower
	whole  bool // all up to our place has been heard: a beat tells the age of what we know
	beaten bool // a beat has told it
	last   time.Duration
	calm   time.Duration // since when there was no long silence

	// For the tap: what came since the last place to go on from.
	held []revoked.Entry
}

// listen takes note of when frames come.
func (h *hearing) listen() {
	now, _ := h.age.read()
	if now-h.last > feedSilence/2 {
		h.calm = now
	}
	h.last = now
	if now-h.calm > calmAfter {
		h.silence = feedSilence
	}
}

func (h *hearing) take(frame feed.Frame) error {
	h.stats.skipped.Add(uint64(frame.Skipped))
	switch frame.Kind {
	case feed.Snapshot:
		// It may come where we asked for less. Until its end there is no place
		// to go on from, and what a beat says does not hold for us.
		if h.whole {
			h.whole = false
			h.setPosition(feed.Position{})
		}
		h.apply(frame.Entries)
		if frame.HasPos {
			h.whole, h.anew = true, false
			h.setPosition(frame.Pos)
			h.stats.snapshots.Add(1)
		}
		h.passOn(frame, frame.Foreign)
	case feed.Live:
		if !h.whole {
			return errUnasked
		}
		h.apply(frame.Entries)
		if frame.HasPos {
			if frame.Pos.Timeline != h.position().Timeline {
				h.setPosition(feed.Position{})
				return errTimeline
			}
			h.setPosition(frame.Pos)
		}
		h.passOn(frame, append(frame.Entries, frame.Foreign...))
		h.stats.heard(h.age)
	case feed.Heartbeat:
		if h.whole {
			return h.beat(frame.Beat)
		}
	}
	return nil
}

// passOn tells the tap, if there is one, what has come when there is a place
// to go on from behind it.
func (h *hearing) passOn(frame feed.Frame, entries []revoked.Entry) {
	if h.tap == nil {
		return
	}
	h.held = append(h.held, entries...)
	switch {
	case !frame.HasPos:
		return
	case frame.Kind == feed.Snapshot:
		h.tap.Snapshot(frame.Pos, frame.High, h.held)
	default:
		h.tap.Live(frame.Pos, frame.High, h.held)
	}
	h.held = nil
}

// apply puts entries in force. Their own time to leave is by the node's clock,
// and is counted from now on by ours; as long as the node's is not known, an
// entry stays as long as any could.
func (h *hearing) apply(entries []revoked.Entry) {
	if len(entries) == 0 {
		return
	}
	now := h.clock()
	theirs, known := h.age.clock()
	if !known {
		theirs = now
	}
	longest := h.keys.longest() + retainMargin
	for i := range entries {
		e := &entries[i]
		if e.Until.IsZero() {
			continue
		}
		// Never less than a token lives that was minted just now: a node whose
		// wall clock was set back dates entries before the clock of its beats.
		left := max(e.Until.Sub(theirs), longest)
		e.Until = now.Add(min(left, longestDiscovered+retainMargin))
	}
	h.table.Apply(entries...)
	h.stats.applied.Add(uint64(len(entries)))
}

func (h *hearing) beat(b feed.Beat) error {
	if !h.age.beat(b.Node, b.Now, time.Duration(min(b.AgeMS, latestSeconds))*time.Millisecond) {
		return errSuspended
	}
	if !h.beaten {
		h.beaten = true
		h.stats.connected.Store(true)
		h.log.Info("the feed of revocations is followed", "url", h.url, "node", b.Node, "position", h.position().String())
		select {
		case h.pinning <- struct{}{}:
		default:
		}
	}
	h.keys.demand(b.Keys)
	h.heard.Store(true)
	h.serve()
	if h.tap == nil {
		return nil
	}
	if age, known := h.age.age(); h.tap.Beat(b, age, known) {
		h.setPosition(feed.Position{})
		return errAnew
	}
	return nil
}

// feedRefusal is an answer that is no stream.
type feedRefusal struct {
	status int
	after  time.Duration // Retry-After
}

func (e *feedRefusal) Error() string {
	switch e.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Sprintf("the authority refuses the API key (status %d): Config.APIKey needs the scope verify", e.status)
	case http.StatusNotFound:
		return "the authority has no feed at this address (status 404): see Config.Authority, or Config.WithoutFeed"
	}
	return fmt.Sprintf("the answer has status %d", e.status)
}

// passing reports whether the same request may do better soon.
func (e *feedRefusal) passing() bool {
	return e.status == http.StatusTooManyRequests || e.status >= 500 && e.status != http.StatusNotImplemented
}
