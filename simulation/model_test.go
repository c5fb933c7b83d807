package simulation

import (
	"fmt"
	"sync"
	"time"
)

// call is a call whose effect the model knows within limits: not before start;
// and if it was acknowledged, done by ack.
type call struct {
	start time.Time
	ack   time.Time // zero: not acknowledged, so it may have been done or not
	over  time.Time // no effect after; zero while it is under way
	at    *node     // that acknowledged it
	run   int       // which process of the node
}

func (c *call) acked(by time.Time) bool { return !c.ack.IsZero() && !c.ack.After(by) }

// change is a call that speaks of all sessions of a user.
type change struct {
	call
	signOut bool
	except  string // the sid that goes on
	rights  int    // the rights that were committed before; 0: none
	pw      int    // the password that was set before; 0: none
}

// session is a session whose sign-in was acknowledged.
type session struct {
	sid, secret string
	user        *user
	epochFrom   time.Time // when the epoch was asked for, and had been told
	epochBy     time.Time
	returned    time.Time
	pw          int // the password that was checked
	ends        []*call
}

// token is an access token that was given out.
type token struct {
	text       string
	session    *session
	kid        string
	rights     int
	exp        time.Time
	degraded   bool          // minted from a copy; start is no later than its read then
	start, end time.Time     // of the call that gave it
	off        time.Duration // of the clock of the node that minted it, from the store's
	skew       time.Duration // and from ours
}

type user struct {
	name    string
	changes []*change
	pw      int // the application's own record
	rights  int
}

// model knows what is true. It is told of calls when they begin and when they
// are acknowledged.
type model struct {
	mu       sync.Mutex
	users    map[string]*user
	sessions []*session
	tokens   []*token
	keys     map[string]*call // the end of signing keys
}

func newModel() *model {
	return &model{users: make(map[string]*user), keys: make(map[string]*call)}
}

// earliest keeps the smaller time that is not zero.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// endedBy is when the session had certainly ended; zero: it need not have.
func (m *model) endedBy(s *session) (at time.Time) {
	for _, e := range s.ends {
		at = earliest(at, e.ack)
	}
	for _, c := range s.user.changes {
		if !c.signOut || c.ack.IsZero() || c.except == s.sid {
			continue
		}
		switch {
		case s.epochBy.Before(c.start):
			at = earliest(at, c.ack)
		case s.pw < c.pw:
			// It stands on a password that was no longer the user's.
			at = earliest(at, latest(c.ack, s.returned))
		}
	}
	return at
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// mayHaveEnded reports whether something that had begun can have ended it.
func (m *model) mayHaveEnded(s *session, now time.Time) bool {
	for _, e := range s.ends {
		if !e.start.After(now) {
			return true
		}
	}
	for _, c := range s.user.changes {
		if c.signOut && !c.start.After(now) && c.except != s.sid && !c.acked(s.epochFrom) {
			return true
		}
	}
	return false
}

// refusedBy is from when on the token had to be refused by whoever knew all, and why.
func (m *model) refusedBy(t *token) (at time.Time, why string) {
	consider := func(when time.Time, reason string) {
		if !when.IsZero() && (at.IsZero() || when.Before(at)) {
			at, why = when, reason
		}
	}
	consider(m.endedBy(t.session), "its session had ended")
	for _, c := range t.session.user.changes {
		if c.rights > t.rights || c.start.After(t.end) {
			consider(c.ack, "the rights had changed")
		}
	}
	if k := m.keys[t.kid]; k != nil && at.IsZero() {
		consider(k.ack, "its key had been revoked")
	}
	return at, why
}

// good reports whether nothing can speak against the token by now.
func (m *model) good(t *token, now time.Time) bool {
	if m.mayHaveEnded(t.session, now) || now.Sub(t.start) > lifetime*6/10 {
		return false
	}
	for _, c := range t.session.user.changes {
		if !c.start.After(now) && (c.over.IsZero() || !c.over.Before(t.start)) {
			return false
		}
	}
	return m.keys[t.kid] == nil
}

// rightsBy is the newest state of the user's rights that had been told by then.
func (u *user) rightsBy(now time.Time) (n int) {
	for _, c := range u.changes {
		if c.acked(now) {
			n = max(n, c.rights)
		}
	}
	return n
}

// restored forgets what was acknowledged after the backup.
func (m *model) restored(backup, began time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	lose := func(c *call) {
		if !c.acked(backup) {
			c.ack = time.Time{}
		}
	}
	for _, s := range m.sessions {
		for _, e := range s.ends {
			lose(e)
		}
		if s.returned.After(backup) {
			s.ends = append(s.ends, &call{start: began})
		}
	}
	for _, u := range m.users {
		for _, c := range u.changes {
			lose(&c.call)
		}
	}
}

// lost is for a sign-in that was under way while the database went back.
func (s *session) lost(began time.Time) { s.ends = append(s.ends, &call{start: began}) }

// application is the owner of the users: passwords and rights are its own.
type application struct{ m *model }

func (a *application) user(name string) *user {
	u := a.m.users[name]
	if u == nil {
		u = &user{name: name, pw: 1, rights: 1}
		a.m.users[name] = u
	}
	return u
}

func (a *application) rights(name string) int {
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	return a.user(name).rights
}

func (a *application) password(name string) int {
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	return a.user(name).pw
}

// violation is a broken promise.
type violation struct {
	promise int
	text    string
}

func (v *violation) String() string {
	if v.promise == 0 {
		return v.text
	}
	return fmt.Sprintf("promise %d: %s", v.promise, v.text)
}
