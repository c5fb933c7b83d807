package counterfoil

import (
	"container/list"
	"maps"
	"slices"
	"sync"
	"time"
)

// sessionCopy is a session as it was read, with what its access tokens say.
// It does not change.
type sessionCopy struct {
	session    Session
	epoch      int64
	keyVersion int64
	readAt     time.Time // by this node's clock, from the instant before the read began
	rest       []byte    // of the payload, without times
}

// exp is when a token that is minted now has to end: at least so long after the
// read as degraded minting is on for, and with the session. It is false when
// this node's clock went back since the read: nobody knows then what time it is.
func (c *sessionCopy) exp(now time.Time, degraded, lifetime time.Duration) (time.Time, bool) {
	mono, wall := now.Sub(c.readAt), now.Round(0).Sub(c.readAt.Round(0))
	age, ok := elapsed(mono, wall)
	exp := c.readAt.Add(degraded)
	for _, end := range []time.Time{now.Add(degraded - age), now.Add(lifetime), c.session.IdleExpiresAt()} {
		if end.Before(exp) {
			exp = end
		}
	}
	return exp.Truncate(time.Second), ok
}

// elapsed is how much time has passed by the two clocks of a machine. The
// monotonic one stands still while it is suspended, and the wall clock may be
// set: the greater counts. Where the wall clock fell behind, it was set back,
// and what it says of expiry is wrong by that much.
func elapsed(mono, wall time.Duration) (time.Duration, bool) {
	return max(mono, wall), mono >= 0 && wall >= 0 && mono-wall <= clockTolerance
}

// copies holds the copies that were read last. All methods are safe for
// concurrent use.
type copies struct {
	most int
	life time.Duration

	mu       sync.Mutex
	bySID    map[string]*list.Element // of *sessionCopy
	subjects map[string][]string      // the sids of a subject
	order    *list.List               // by readAt, the oldest in front
}

func newCopies(most int, life time.Duration) *copies {
	return &copies{most: most, life: life, bySID: make(map[string]*list.Element), subjects: make(map[string][]string), order: list.New()}
}

func (c *copies) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Len()
}

func (c *copies) get(sid string) (*sessionCopy, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.bySID[sid]
	if !ok {
		return nil, false
	}
	return at.Value.(*sessionCopy), true
}

// usable reports whether a token could be minted from any copy.
func (c *copies) usable(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.order.Back()
	if last == nil {
		return false
	}
	exp, ok := last.Value.(*sessionCopy).exp(now, c.life, c.life)
	return ok && exp.Sub(now) >= leastDegraded
}

// keep takes the place of an older copy.
func (c *copies) keep(snap *Snapshot, readAt time.Time, rest []byte) {
	fresh := &sessionCopy{
		session: cloneSession(&snap.Session), epoch: snap.Subject.Epoch, keyVersion: snap.KeyVersion,
		readAt: readAt, rest: slices.Clone(rest),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	sid := fresh.session.ID
	if at, ok := c.bySID[sid]; ok {
		if at.Value.(*sessionCopy).readAt.After(readAt) {
			return
		}
		at.Value = fresh
		c.order.MoveToBack(at)
	} else {
		c.bySID[sid] = c.order.PushBack(fresh)
		c.subjects[fresh.session.Subject] = append(c.subjects[fresh.session.Subject], sid)
	}
	for {
		oldest := c.order.Front().Value.(*sessionCopy)
		age, _ := elapsed(readAt.Sub(oldest.readAt), readAt.Round(0).Sub(oldest.readAt.Round(0)))
		if c.order.Len() <= c.most && age <= c.life {
			return
		}
		c.drop(oldest.session.ID)
	}
}

// compare removes a copy that says other than what was read now.
func (c *copies) compare(snap *Snapshot) {
	s := &snap.Session
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.bySID[s.ID]
	if !ok {
		return
	}
	known := at.Value.(*sessionCopy)
	same := snap.ended() == nil && s.SecretHash == known.session.SecretHash && snap.Subject.Epoch == known.epoch &&
		(s.Binding == nil) == (known.session.Binding == nil) && s.ExpiresAt.Equal(known.session.ExpiresAt)
	if !same {
		c.drop(s.ID)
	}
}

func (c *copies) remove(sid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(sid)
}

func (c *copies) removeSubject(subject string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, sid := range slices.Clone(c.subjects[subject]) {
		c.drop(sid)
	}
}

func (c *copies) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.bySID)
	clear(c.subjects)
	c.order.Init()
}

// drop removes one copy; the lock is held.
func (c *copies) drop(sid string) {
	at, ok := c.bySID[sid]
	if !ok {
		return
	}
	delete(c.bySID, sid)
	subject := c.order.Remove(at).(*sessionCopy).session.Subject
	left := slices.DeleteFunc(c.subjects[subject], func(other string) bool { return other == sid })
	if len(left) == 0 {
		delete(c.subjects, subject)
	} else {
		c.subjects[subject] = left
	}
}

func cloneSession(s *Session) Session {
	c := *s
	c.Methods, c.Roles, c.Scope = slices.Clone(s.Methods), slices.Clone(s.Roles), slices.Clone(s.Scope)
	c.Extra = maps.Clone(s.Extra)
	if s.Binding != nil {
		binding := *s.Binding
		c.Binding = &binding
	}
	return c
}
