//go:build linux

package faults

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// session is what was acknowledged of one session.
type session struct {
	sid, token string
	of         *subject
	made       time.Time // when its sign-in was acknowledged

	// Under the oracle's lock.
	revoking time.Time // when the first call that ends it was sent; zero: none
	revoked  time.Time // when one of them was acknowledged; zero: none
	access   []access  // the last access tokens
}

type access struct {
	token string
	got   time.Time
}

// subject is a user. One client alone acts for it.
type subject struct {
	id       string
	user     bool // of the directory
	sessions []*session
}

// oracle remembers what was acknowledged, and says what contradicts it.
type oracle struct {
	mu       sync.Mutex
	sessions []*session
	recent   []*session // revoked, newest last
	lossy    time.Time  // what was acknowledged from then on may be lost, which a warning has said; zero: nothing
	lost     int        // sign-ins
	mending  bool       // lost revocations may still be on their way back
	worst    time.Duration
	wrong    []string
}

const kept = 3 // access tokens of a session

func (o *oracle) fault(format string, args ...any) {
	const most = 12
	if len(o.wrong) < most {
		o.wrong = append(o.wrong, fmt.Sprintf(format, args...))
	}
}

// problem is fault for those who do not hold the lock.
func (o *oracle) problem(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fault(format, args...)
}

func (o *oracle) signedIn(s *session, token string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.made = time.Now()
	s.access = []access{{token, s.made}}
	s.of.sessions = append(s.of.sessions, s)
	o.sessions = append(o.sessions, s)
}

// revoking says that a call that ends these sessions is about to be sent.
func (o *oracle) revoking(list []*session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range list {
		if s.revoking.IsZero() {
			s.revoking = time.Now()
		}
	}
}

// revoked says that the call was acknowledged at that time.
func (o *oracle) revoked(list []*session, at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range list {
		if s.revoked.IsZero() {
			s.revoked = at
			o.recent = append(o.recent, s)
		}
	}
}

// refreshed judges the answer to a refresh that began and ended then. It
// reports whether it is one of those that a sound server gives to a session:
// all others mean that it could not tell.
func (o *oracle) refreshed(s *session, began, ended time.Time, a answer, node string) (definite bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case a.status == 200:
		if !s.revoked.IsZero() && s.revoked.Before(began) && !o.excused(s) {
			o.fault("%s minted for session %s %s after its revocation was acknowledged", node, s.sid, began.Sub(s.revoked))
		}
		s.access = append(s.access, access{a.accessToken, ended})
		if len(s.access) > kept {
			s.access = slices.Delete(s.access, 0, 1)
		}
		return true
	case a.code == "session_revoked":
		if s.revoking.IsZero() || s.revoking.After(ended) {
			o.fault("%s says that session %s was revoked: nobody did", node, s.sid)
		}
		return true
	case a.code == "session_unknown" && !o.lossy.IsZero() && s.made.After(o.lossy):
		o.lost++
		return true
	case a.code == "session_unknown" || a.code == "session_expired":
		o.fault("%s answers %s for session %s, whose sign-in was acknowledged", node, a.code, s.sid)
		return true
	}
	return false
}

// some returns a session by its number, the newest being 0; nil if there is none.
func (o *oracle) some(n int) *session {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n >= len(o.sessions) {
		return nil
	}
	return o.sessions[len(o.sessions)-1-n]
}

// lastRevoked returns the n-th newest of the sessions whose revocation was
// acknowledged; nil if there is none.
func (o *oracle) lastRevoked(n int) *session {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n >= len(o.recent) {
		return nil
	}
	return o.recent[len(o.recent)-1-n]
}

// state returns what is known of a session now.
func (o *oracle) state(s *session) (tokens []access, revoking, revoked time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(s.access), s.revoking, s.revoked
}

// accepted judges that a verifier took a token of a session revoked before
// the check began: it may only if it had not claimed to know better.
func (o *oracle) accepted(who string, s *session, began, revoked time.Time, age time.Duration, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	late := began.Sub(revoked)
	o.worst = max(o.worst, late)
	if known && late > age+slack && !o.excused(s) {
		o.fault("%s took a token of session %s, revoked %s before, and knew of everything up to %s before", who, s.sid, late, age)
	}
}

// slack is for the clock reads around a check.
const slack = 2 * time.Millisecond

func (o *oracle) all() []*session {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.sessions)
}

// lose says that what was acknowledged from then on may be lost: revocations
// until mended.
func (o *oracle) lose(from time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lossy, o.mending = from, true
}

func (o *oracle) mended() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mending = false
}

func (o *oracle) excused(s *session) bool {
	return o.mending && s.revoked.After(o.lossy)
}

// mayBeLost reports whether the session need not be there any more.
func (o *oracle) mayBeLost(s *session) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.lossy.IsZero() && s.made.After(o.lossy)
}
