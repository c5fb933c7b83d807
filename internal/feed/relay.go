package feed

import (
	"context"
	"time"

	"github.com/counterfoil/counterfoil/internal/revoked"
)

// Begin starts over, for a server whose entries come from another node's feed
// and not from a log: Snapshot returns all that was in force at pos from now
// on, and no entry until now has a position above high. Everybody who follows
// gets a snapshot, and so do those who come with a position below high: what
// they miss may be in no frame. readAt is as with Publish; zero changes nothing.
func (s *Server) Begin(pos Position, high int64, readAt time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	if s.due != nil {
		s.due.Stop()
		s.due = nil
	}
	s.begin(pos)
	s.floor = max(pos.Seq, high)
	if readAt.After(s.readAt) {
		s.readAt = readAt
	}
}

// Beat sends a beat now, and puts the next one off. A node that beats when the
// node above it did adds to what readers know of their age what the way took,
// and not the time until a ticker of its own.
func (s *Server) Beat() {
	keys := s.cfg.KeyVersion()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || len(s.round.streams) == 0 {
		return
	}
	now := time.Now()
	s.beaten = now
	s.makeBeats(now, keys)
}

// UnknownAge stands for an age that is not known, in a beat: more than any
// reader takes. A node says so that has not been connected yet and serves what
// an earlier run has left.
const UnknownAge = (1 << 32) * time.Millisecond

// Tap is told what a follower of a feed has taken and put in force, for those
// who serve it on. Its methods are called by one goroutine after the other,
// but for Keys. They are quick.
type Tap interface {
	// Open hands over the table in which the follower keeps what is in force.
	Open(table *revoked.Table)
	// Keys hands over a key set that was installed.
	Keys(k KeySet)
	// Resume says that the table was filled by an earlier run, up to pos.
	Resume(pos Position)
	// Snapshot says that the table holds all that was in force at pos, where
	// no entry had a position above high. foreign is what it cannot hold.
	Snapshot(pos Position, high int64, foreign []revoked.Entry)
	// Live hands over what has come since, in force already. What this version
	// does not know is among it.
	Live(pos Position, high int64, entries []revoked.Entry)
	// Beat comes with each beat: everything that the store had age ago has been
	// handed over, as far as that is known. With startOver the follower asks
	// for a snapshot.
	Beat(b Beat, age time.Duration, known bool) (startOver bool)
}

// KeySet is a key set as its authority published it, to be served on.
type KeySet struct {
	Version   int64
	Document  []byte    // the JWKS
	Discovery []byte    // of RFC 8414; empty: not at hand
	Fetched   time.Time // when it was true, by the follower's clock
	Longest   time.Duration
}

type tapKey struct{}

// WithTap has verify.New attach a tap to the follower that it makes.
func WithTap(ctx context.Context, t Tap) context.Context { return context.WithValue(ctx, tapKey{}, t) }

// TapOf returns the tap of WithTap, or nil.
func TapOf(ctx context.Context) Tap {
	t, _ := ctx.Value(tapKey{}).(Tap)
	return t
}
