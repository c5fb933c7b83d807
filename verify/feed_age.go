package verify

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// clockDrift is how much slower or faster the clock of the authority's node
	// may run than ours, in parts per million.
	clockDrift = 200
	// suspension is how far the wall clock may run ahead of or behind the
	// monotonic one before the machine counts as having been suspended.
	suspension = time.Second
)

// wireRounding is what two times of a node may lose on the wire, where they
// have microseconds.
const wireRounding = int64(2 * time.Microsecond)

// latestSeconds keeps times that come over the wire within 64 bits of nanoseconds.
const latestSeconds = 1 << 32

// never is before every time of a monotonic clock.
const never = math.MinInt64

// feedAge knows how old is what the feed has told: the time that has passed
// since the store was last known to be read to its end.
//
// It compares no clock with one of another machine. The node's clock is mapped
// to ours by what it said in an answer that we asked for at a known time: that
// was said no earlier, so every age is an upper bound, however long an answer
// or a frame was under way. Times are nanoseconds of the monotonic clock.
type feedAge struct {
	read func() (mono time.Duration, wall time.Time)

	known atomic.Int64 // when the store was read, or a little before; never: not known
	skew  atomic.Int64 // wall − mono, when the stream began

	mu    sync.Mutex
	pin   pin
	since int64 // when the present stream was asked for
	last  int64 // the time in its last beat
}

// pin maps the clock of a node to ours: a time of the node is at least offset
// later by our clock. It loses worth with time, as clocks drift.
type pin struct {
	offset, at int64
	node       string
	set        bool
}

func newFeedAge() *feedAge {
	begin := time.Now()
	a := &feedAge{read: func() (time.Duration, time.Time) {
		now := time.Now()
		return now.Sub(begin), now.Round(0)
	}}
	a.known.Store(never)
	a.skew.Store(begin.UnixNano())
	return a
}

// age is what may have passed since the store was read. It is false when that
// is not known: before the first beat, and after a suspension until the next.
func (a *feedAge) age() (time.Duration, bool) {
	mono, wall := a.read()
	// The skew is read first: begin makes known unknown before it changes it.
	ran := a.ranOn(mono, wall)
	known := a.known.Load()
	if known == never || !ran {
		return 0, false
	}
	return max(0, mono-time.Duration(known)), true
}

// suspended reports whether the machine stood still since the stream began, or
// its wall clock was set, which looks alike.
func (a *feedAge) suspended() bool {
	mono, wall := a.read()
	return !a.ranOn(mono, wall)
}

func (a *feedAge) ranOn(mono time.Duration, wall time.Time) bool {
	apart := time.Duration(wall.UnixNano()-int64(mono)) - time.Duration(a.skew.Load())
	return apart <= suspension && apart >= -suspension
}

// begin is called right before a stream is asked for. After a suspension all
// that was known is forgotten, and it returns true.
func (a *feedAge) begin() (suspended bool) {
	mono, wall := a.read()
	a.mu.Lock()
	defer a.mu.Unlock()
	if suspended = !a.ranOn(mono, wall); suspended {
		a.known.Store(never)
	}
	a.skew.Store(wall.UnixNano() - int64(mono))
	a.pin, a.since = pin{}, int64(mono)
	return suspended
}

// beat takes one beat: at the time now of its node, the store had been read age
// before, and everything from then has been applied here. It reports whether
// that can be: a time to come means that one of the clocks did not run.
func (a *feedAge) beat(node string, now float64, age time.Duration) bool {
	if now > latestSeconds || age < 0 {
		return false
	}
	mono, _ := a.read()
	t := int64(mono)
	theirs := int64(now * 1e9)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.pin.set || a.pin.node != node {
		a.pin = pin{offset: a.since - theirs, at: t, node: node, set: true}
	}
	a.last = theirs
	at := theirs - int64(age) + a.pin.offset - drift(t-a.pin.at) - wireRounding
	if at > t+int64(suspension) {
		return false
	}
	if at = min(at, t); at > a.known.Load() {
		a.known.Store(at)
	}
	return true
}

// clock is what the node's showed in the last beat of this stream: by now
// it is later there. It is false before the first.
func (a *feedAge) clock() (time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Unix(0, a.last), a.pin.set
}

// repin takes an answer that was asked for at t0 and came at t1: the clock of
// the node stood at now somewhere in between. It reports whether the answer is
// of the node that the stream is from.
func (a *feedAge) repin(t0, t1 time.Duration, node string, now float64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.pin.set || a.pin.node != node {
		return false
	}
	theirs := int64(now * 1e9)
	least, most := int64(t0)-theirs, int64(t1)-theirs
	// The old pin, with what clocks may have drifted since, is as good a bound
	// as the new one, unless the new one says that it is none.
	if old := a.pin.offset - drift(int64(t1)-a.pin.at); old > least && old <= most {
		least = old
	}
	a.pin.offset, a.pin.at = least, int64(t1)
	return true
}

func drift(ns int64) int64 { return max(0, ns) / (1e6 / clockDrift) }
