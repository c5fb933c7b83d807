package verify

import (
	"sync/atomic"
	"time"
)

const (
	coarseTick = 100 * time.Millisecond
	// coarseMargin is how near an end of a token's time the system's clock is
	// asked itself. It is ten times the coarse clock's error.
	coarseMargin = time.Second
)

// coarseClock tells the system's time at most 100 ms late, for a nanosecond
// instead of the fifty that time.Now can take. While it is read it is set by a
// timer; when it was not read for a tick it sleeps, and the next reader wakes
// it. So nothing runs in a process that is idle, and there is nothing to close.
//
// A process that gets no processor, or is stopped and continued, may read a
// time that is older until its timers have run, as it may be stopped between
// reading any clock and acting on it.
type coarseClock struct {
	_      [2 * lineBytes]byte
	unix   atomic.Int64 // nanoseconds; 0: asleep
	read   atomic.Bool  // since the last tick
	waking atomic.Bool  // held by whoever sets unix while it is 0
	_      [2 * lineBytes]byte
}

func (c *coarseClock) now() int64 {
	now := c.unix.Load()
	if now == 0 {
		return c.wake()
	}
	if !c.read.Load() { // written once a tick, or all processors wait for one line
		c.read.Store(true)
	}
	return now
}

func (c *coarseClock) wake() int64 {
	if c.waking.CompareAndSwap(false, true) {
		c.set()
		time.AfterFunc(coarseTick, c.tick)
	}
	return time.Now().UnixNano()
}

func (c *coarseClock) tick() {
	if !c.read.Swap(false) {
		c.unix.Store(0)
		c.waking.Store(false)
		return
	}
	c.set()
	time.AfterFunc(coarseTick, c.tick)
}

// set stores the time. Whoever is stopped between reading and storing stores an
// old one, so it looks again.
func (c *coarseClock) set() {
	for {
		now := time.Now().UnixNano()
		c.unix.Store(now)
		if d := time.Now().UnixNano() - now; d >= 0 && d < int64(coarseTick)/10 {
			return
		}
	}
}
