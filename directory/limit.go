package directory

import (
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
)

// Limit is how failures under one key slow down what follows. The first Free
// failures cost nothing; each one after doubles the wait, from a second up to
// Slowest. One failure is forgotten every Slowest, so that somebody who never
// stops gets one try in Slowest, and an honest user is soon free again.
type Limit struct {
	Free    int
	Slowest time.Duration
}

const firstWait = time.Second

func (l Limit) validate(field string) error {
	if l.Free < 1 || l.Free > 1<<20 || l.Slowest < firstWait || l.Slowest > 24*time.Hour {
		return &counterfoil.FieldError{Field: field, Message: fmt.Sprintf("Free %d and Slowest %s: need 1 ≤ Free ≤ 1048576 and 1s ≤ Slowest ≤ 24h", l.Free, l.Slowest)}
	}
	return nil
}

// wait is how long after the given failure the next attempt must wait.
func (l Limit) wait(failures int) time.Duration {
	over := failures - l.Free
	if over <= 0 {
		return 0
	}
	if over > 20 { // 2^20 s are beyond any Slowest
		return l.Slowest
	}
	return min(l.Slowest, firstWait<<(over-1))
}

// most is the highest count: the first at which the wait is the longest.
// Counting further would punish for longer than the waits do.
func (l Limit) most() int {
	n := l.Free + 1
	for l.wait(n) < l.Slowest {
		n++
	}
	return n
}

// failures is what c counts now. A counter expires when its last failure is
// forgotten, so ExpiresAt alone tells how many are left; c.Failures is for readers.
func (l Limit) failures(c *Counter, now time.Time) int {
	left := c.ExpiresAt.Sub(now) - time.Millisecond // stores may round by one
	if c.ExpiresAt.IsZero() || left <= 0 {
		return 0
	}
	return min(l.most(), int((left+l.Slowest-1)/l.Slowest))
}

func (l Limit) set(c *Counter, failures int, left time.Duration, now time.Time) {
	c.Failures = failures
	c.ExpiresAt = now.Add(min(left, time.Duration(l.most())*l.Slowest))
	if failures == 0 {
		c.ExpiresAt, c.NotBefore = now, time.Time{}
	}
}

// add counts one failure.
func (l Limit) add(c *Counter, now time.Time) {
	left := max(0, c.ExpiresAt.Sub(now))
	if c.ExpiresAt.IsZero() {
		left = 0
	}
	n := min(l.most(), l.failures(c, now)+1)
	l.set(c, n, left+l.Slowest, now)
	c.NotBefore = time.Time{}
	if wait := l.wait(n); wait > 0 {
		c.NotBefore = now.Add(wait)
	}
}

// takeBack forgets n failures. The wait that the attempt itself brought about
// goes too; one that came from elsewhere stays.
func (l Limit) takeBack(c *Counter, n int, mine time.Time, now time.Time) {
	left := max(0, c.ExpiresAt.Sub(now)-time.Duration(n)*l.Slowest)
	if c.NotBefore.Equal(mine) {
		c.NotBefore = time.Time{}
	}
	l.set(c, max(0, l.failures(c, now)-n), left, now)
}
