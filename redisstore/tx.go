package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// joined is the sessions inside a transaction of the application: what ends
// them is in it, they themselves are not.
type joined struct {
	sessions
	journal  *sqlstore.Journal
	subjects counterfoil.SessionStore
}

// notIn refuses what SQL cannot undo.
func notIn(op string) error {
	return failed(op, fmt.Errorf("%w: sessions are in Redis; a transaction can end them and change subjects", counterfoil.ErrNoTransactions))
}

func (j joined) Insert(context.Context, counterfoil.Session) (counterfoil.Snapshot, error) {
	return counterfoil.Snapshot{}, notIn("add session")
}

func (j joined) Update(context.Context, string, time.Duration, func(*counterfoil.Session) (bool, error)) (counterfoil.Session, []counterfoil.Revocation, error) {
	return counterfoil.Session{}, nil, notIn("change session")
}

func (j joined) Touch(context.Context, []counterfoil.Touch) error { return notIn("touch sessions") }

func (j joined) Purge(context.Context, time.Time, int) (int, error) {
	return 0, notIn("purge sessions")
}

func (j joined) Subject(ctx context.Context, id string) (counterfoil.Subject, error) {
	return j.subjects.Subject(ctx, id)
}

func (j joined) End(ctx context.Context, q counterfoil.EndRequest) (counterfoil.Ended, error) {
	ended, _, err := j.end(ctx, j.journal, q)
	if err == nil && ended.Session.End == nil {
		var snap counterfoil.Snapshot
		snap, err = j.Snapshot(ctx, q.ID)
		ended.Session = snap.Session
	}
	if err != nil {
		return counterfoil.Ended{}, failed("end session", err)
	}
	return ended, nil
}

func (j joined) Advance(ctx context.Context, a counterfoil.Advance) (counterfoil.Advanced, error) {
	done, err := j.advanceIn(ctx, a)
	if err != nil {
		return counterfoil.Advanced{}, failed("advance subject", err)
	}
	return done, nil
}

func (j joined) advanceIn(ctx context.Context, a counterfoil.Advance) (done counterfoil.Advanced, err error) {
	if err := checkEnd(&a.End); a.SignOut && err != nil {
		return done, err
	}
	var kept sqlstore.Kept
	if a.SignOut && a.Keep != nil {
		if kept, err = j.judge(ctx, a.Keep.ID); err != nil {
			return done, err
		}
	}
	done, _, err = j.journal.Advance(ctx, a, kept)
	if err == nil && done.Revocation.Except != "" {
		var snap counterfoil.Snapshot
		snap, err = j.Snapshot(ctx, done.Revocation.Except)
		done.Kept = &snap.Session
	}
	return done, err
}

func (j joined) Snapshot(ctx context.Context, id string) (counterfoil.Snapshot, error) {
	snap, own, err := j.snapshot(ctx, id)
	if err == nil {
		snap.Session, snap.Subject, err = j.overlay(ctx, own.Session)
	}
	if err != nil {
		return counterfoil.Snapshot{}, failed("read session", err)
	}
	return snap, nil
}

func (j joined) List(ctx context.Context, q counterfoil.ListQuery) ([]counterfoil.Session, string, error) {
	wanted := q.ActiveAt
	list, next, err := j.sessions.List(ctx, q)
	if err != nil {
		return nil, "", err
	}
	shown := list[:0]
	for _, one := range list {
		if one, _, err = j.overlay(ctx, one); err != nil {
			return nil, "", failed("list sessions", err)
		}
		if wanted.IsZero() || one.Status(wanted) == counterfoil.StatusActive {
			shown = append(shown, one)
		}
	}
	return shown, next, nil
}

// overlay is a session as it will be once the transaction is committed.
func (j joined) overlay(ctx context.Context, one counterfoil.Session) (counterfoil.Session, counterfoil.Subject, error) {
	sub, err := j.Subject(ctx, one.Subject)
	if err != nil {
		return one, sub, err
	}
	facts, err := j.journal.About(ctx, one.ID)
	if err != nil {
		return one, sub, err
	}
	for _, f := range facts {
		if one.End == nil {
			one.End = f.End
		}
	}
	if facts, err = j.journal.About(ctx, one.Subject); err != nil {
		return one, sub, err
	}
	for _, f := range facts {
		if k := f.Keep; k != nil && k.ID == one.ID && one.Epoch0 < f.Subject.Epoch {
			one.Epoch0 = f.Subject.Epoch
			if k.SecretHash != (opaque.Hash{}) {
				one.SecretHash = k.SecretHash
			}
			if !k.AuthTime.IsZero() {
				one.AuthTime = k.AuthTime
			}
			if k.Methods != nil {
				one.Methods = k.Methods
			}
		}
	}
	one.End = sub.EndOf(&one)
	return one, sub, nil
}

// Committed tells Redis what a transaction did.
func (s *Store) Committed(ctx context.Context, revocations ...counterfoil.Revocation) error {
	for _, r := range revocations {
		facts, err := s.journal.UntoldAbout(ctx, r.ID)
		if err == nil {
			err = s.tell(ctx, facts)
		}
		if err != nil {
			return failed("tell what was committed", notTold(err))
		}
	}
	return nil
}
