package memstore

import (
	"context"
	"errors"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

var errNoSubject = errors.New("advance: Subject must be set")

// subject is a row beside the sessions.
type subject struct{ counterfoil.Subject }

func (s *subject) clone() counterfoil.Subject {
	c := s.Subject
	c.SignedOut = cloneEnd(c.SignedOut)
	c.Rights = cloneRights(c.Rights)
	return c
}

// peek returns the subject's row, or the one that it would get now without
// keeping it. A new row starts above all that any verifier may have heard of,
// so that no entry of the feed speaks of its tokens by mistake.
func (s *Store) peek(id string) *subject {
	if row, ok := s.subjects[id]; ok {
		return row
	}
	return &subject{counterfoil.Subject{ID: id, Epoch: max(s.position, s.epoch) + 1}}
}

func (s sessions) Subject(ctx context.Context, id string) (counterfoil.Subject, error) {
	if err := ctx.Err(); err != nil {
		return counterfoil.Subject{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peek(id).clone(), nil
}

func (s sessions) Advance(ctx context.Context, a counterfoil.Advance) (counterfoil.Advanced, error) {
	if err := ctx.Err(); err != nil {
		return counterfoil.Advanced{}, err
	}
	if a.Subject == "" {
		return counterfoil.Advanced{}, errNoSubject
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.advance(a), nil
}

func (s *Store) advance(a counterfoil.Advance) counterfoil.Advanced {
	now := s.now()
	row := s.peek(a.Subject)
	s.subjects[a.Subject] = row

	var kept *session
	if a.SignOut && a.Keep != nil {
		kept = s.sessions[a.Keep.ID]
		if kept != nil && (kept.Subject != a.Subject || s.endOf(kept) != nil) {
			kept = nil
		}
	}
	if a.SignOut && row.SignedOut != nil {
		s.settleEnds(row)
	}
	row.Epoch++
	if a.Rights != nil {
		row.Rights = cloneRights(*a.Rights)
	}
	entry := counterfoil.Revocation{Kind: revoked.Subject, ID: a.Subject, StaleBelow: row.Epoch}
	if a.SignOut {
		row.SignedOutBelow = row.Epoch
		a.End.At = now
		row.SignedOut = cloneEnd(&a.End)
		entry.RevokedBelow = row.Epoch
	}
	var done counterfoil.Advanced
	if kept != nil {
		kept.keep(*a.Keep, row.Epoch)
		entry.Except = kept.ID
		c := s.resolved(kept)
		done.Kept = &c
	}
	done.Revocation = s.report(entry, now, a.Retain)
	done.Subject = row.clone()
	return done
}

// settleEnds writes the end of those sessions that ended by the subject's row
// alone into their own, before a later sign-out takes its place.
func (s *Store) settleEnds(sub *subject) {
	for _, row := range s.order {
		if row.Subject == sub.ID && row.End == nil && row.Epoch0 < sub.SignedOutBelow {
			row.End = cloneEnd(sub.SignedOut)
			row.version++
		}
	}
}

// keep lets a session go on above a sign-out.
func (row *session) keep(k counterfoil.Keep, epoch int64) {
	row.Epoch0 = epoch
	if k.SecretHash != (counterfoil.Keep{}.SecretHash) {
		row.SecretHash = k.SecretHash
	}
	if !k.AuthTime.IsZero() {
		row.AuthTime = moment(k.AuthTime)
	}
	if k.Methods != nil {
		row.Methods = append([]string{}, k.Methods...)
	}
	row.version++
}
