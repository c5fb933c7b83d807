package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/revoked"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// sessions is counterfoil.SessionStore.
type sessions struct{ *Store }

var _ counterfoil.SessionStore = sessions{}

func randomName() string { return opaque.RandomText() }

func (s sessions) Snapshot(ctx context.Context, id string) (counterfoil.Snapshot, error) {
	snap, _, err := s.snapshot(ctx, id)
	if err != nil {
		return counterfoil.Snapshot{}, failed("read session", err)
	}
	return snap, nil
}

// snapshot reads a session and its subject, and mends what SQL knows better.
func (s *Store) snapshot(ctx context.Context, id string) (snap counterfoil.Snapshot, own record, err error) {
	snap, own, _, err = s.look(ctx, id)
	return snap, own, err
}

// look is snapshot, and returns what more the script was asked for.
func (s *Store) look(ctx context.Context, id string, more ...string) (snap counterfoil.Snapshot, own record, rest []rueidis.RedisMessage, err error) {
	at, name, ok := split(id)
	if !ok {
		return snap, own, nil, counterfoil.ErrNotFound
	}
	args := append([]string{name}, more...)
	const tries = 5
	for range tries {
		if err := s.follow.fresh(ctx); err != nil {
			return snap, own, nil, err
		}
		before := s.guard.changes()
		list, err := s.read(ctx, snapshotScript, at, args...)
		if err != nil {
			return snap, own, nil, err
		}
		if err := s.guard.passFor(ctx, s, at); err != nil {
			return snap, own, nil, err
		}
		if s.guard.changes() != before {
			continue // what was read may be from before the repair
		}
		if len(list) == 0 {
			return snap, own, nil, counterfoil.ErrNotFound
		}
		var copied bool
		snap, own, copied, err = s.readSnapshot(id, list[:min(4, len(list))])
		switch {
		case err != nil:
			return snap, own, nil, err
		case !copied:
			if err := s.copySubject(ctx, at, own.Subject); err != nil {
				return snap, own, nil, err
			}
			continue
		}
		if s.follow.agrees(&snap) {
			return snap, own, list[4:], nil
		}
		if err := s.mend(ctx, &snap); err != nil {
			return snap, own, nil, err
		}
	}
	return snap, own, nil, unavailable(errContradiction)
}

var errContradiction = errors.New("a session there contradicts the feed log")

// readSnapshot reads record, copy and clock. copied is false where the copy is missing.
func (s *Store) readSnapshot(id string, list []rueidis.RedisMessage) (snap counterfoil.Snapshot, own record, copied bool, err error) {
	if len(list) != 4 {
		return snap, own, false, errShape
	}
	data, err := list[0].AsBytes()
	if err != nil {
		return snap, own, false, err
	}
	if own, err = readRecord(id, data); err != nil {
		return snap, own, false, err
	}
	copied = !list[1].IsNil()
	if copied {
		data, err := list[1].AsBytes()
		if err != nil {
			return snap, own, false, err
		}
		if snap.Subject, err = readSubject(own.Subject, data); err != nil {
			return snap, own, false, err
		}
	}
	snap.Now, err = s.nowOf(list[2], list[3])
	snap.Session = own.Session
	snap.Session.End = snap.Subject.EndOf(&own.Session)
	snap.KeyVersion = s.follow.keyVersion.Load()
	return snap, own, copied, err
}

func (s *Store) nowOf(seconds, micros rueidis.RedisMessage) (time.Time, error) {
	if s.clock != nil {
		return fromMillis(s.clock().UnixMilli()), nil
	}
	a, err := seconds.ToString()
	if err != nil {
		return time.Time{}, err
	}
	b, err := micros.ToString()
	if err != nil {
		return time.Time{}, err
	}
	return clockOf(a, b)
}

// clockOf reads the answer of TIME.
func clockOf(seconds, micros string) (time.Time, error) {
	a, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("clock: %w", err)
	}
	b, err := strconv.ParseInt(micros, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("clock: %w", err)
	}
	return time.Unix(a, b*1000).UTC(), nil
}

// copySubject brings the copy of a subject that Redis lost.
func (s *Store) copySubject(ctx context.Context, at shard, subject string) error {
	sub, err := s.row(ctx, at, subject)
	if err != nil {
		return err
	}
	_, err = s.read(ctx, learnScript, at, subject, string(encodeSubject(&sub)))
	return err
}

// row is a subject's row in SQL, which is made where it is missing.
func (s *Store) row(ctx context.Context, at shard, subject string) (sub counterfoil.Subject, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	sessions, err := s.client.Do(ctx, s.client.B().Exists().Key(s.base(at)+"z:"+subject).Build()).AsInt64()
	if err != nil {
		return sub, unavailable(err)
	}
	return s.journal.Ensure(ctx, subject, sessions > 0)
}

// mend tells Redis what SQL has of a session and its subject. There was no
// time to tell it yet, or it went back in time.
func (s *Store) mend(ctx context.Context, snap *counterfoil.Snapshot) error {
	facts, err := s.journal.About(ctx, snap.Session.ID)
	if err != nil {
		return err
	}
	more, err := s.journal.About(ctx, snap.Subject.ID)
	if err != nil {
		return err
	}
	sub, err := s.row(ctx, shardOf(snap.Subject.ID), snap.Subject.ID)
	if err != nil {
		return err
	}
	facts = append(append(facts, more...), sqlstore.Fact{Ref: sub.ID, Subject: &sub})
	return s.tell(ctx, facts)
}

// judge reads a session that is to be kept.
func (s *Store) judge(ctx context.Context, id string) (sqlstore.Kept, error) {
	_, own, err := s.snapshot(ctx, id)
	if errors.Is(err, counterfoil.ErrNotFound) {
		return sqlstore.Kept{}, nil
	}
	return sqlstore.Kept{Subject: own.Subject, Epoch0: own.Epoch0, Live: own.End == nil}, err
}

func (s sessions) Subject(ctx context.Context, id string) (counterfoil.Subject, error) {
	return s.sql.Sessions().Subject(ctx, id)
}

func (s sessions) Advance(ctx context.Context, a counterfoil.Advance) (counterfoil.Advanced, error) {
	done, err := s.advance(ctx, s.journal, a)
	if err != nil {
		return counterfoil.Advanced{}, failed("advance subject", err)
	}
	return done, nil
}

func (s sessions) advance(ctx context.Context, journal *sqlstore.Journal, a counterfoil.Advance) (done counterfoil.Advanced, err error) {
	if err := checkEnd(&a.End); a.SignOut && err != nil {
		return done, err
	}
	var kept sqlstore.Kept
	if a.SignOut && a.Keep != nil {
		if kept, err = s.judge(ctx, a.Keep.ID); err != nil {
			return done, err
		}
	}
	done, fact, err := journal.Advance(ctx, a, kept)
	if err != nil {
		return done, err
	}
	if err := s.tell(ctx, []sqlstore.Fact{fact}); err != nil {
		return done, notTold(err)
	}
	return done, s.fillKept(ctx, &done)
}

// fillKept reads the session that was kept.
func (s *Store) fillKept(ctx context.Context, done *counterfoil.Advanced) error {
	id := done.Revocation.Except
	if id == "" || done.Revocation.Kind != revoked.Subject {
		return nil
	}
	snap, _, err := s.snapshot(ctx, id)
	if errors.Is(err, counterfoil.ErrNotFound) {
		return nil // purged meanwhile, or lost with the server
	}
	done.Kept = &snap.Session
	return err
}

// notTold says of a change that is committed in SQL that Redis does not know yet.
func notTold(err error) error {
	return fmt.Errorf("%w: %w", counterfoil.ErrNotTold, err)
}
