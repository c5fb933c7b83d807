package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// sessions is counterfoil.SessionStore over one engine: the store's own, or
// the application's transaction. What differs between the dialects is in
// sessions_sqlite.go and sessions_postgresql.go.
type sessions struct {
	*Store
	in engine
}

var _ counterfoil.SessionStore = (*sessions)(nil)

func (s *sessions) Snapshot(ctx context.Context, id string) (counterfoil.Snapshot, error) {
	snap, _, err := s.snapshot(ctx, id)
	if err != nil {
		return counterfoil.Snapshot{}, failed("read session", err)
	}
	return snap, nil
}

// snapshot also returns what only this package needs.
func (s *sessions) snapshot(ctx context.Context, id string) (snap counterfoil.Snapshot, own session, err error) {
	if p, ok := s.in.(*pool); ok {
		return p.ask(ctx, id)
	}
	err = s.in.view(ctx, func(on runner) (err error) {
		snap, own, err = s.readSnapshot(ctx, on, id)
		return err
	})
	return snap, own, err
}

func (s *sessions) readSnapshot(ctx context.Context, on runner, id string) (snap counterfoil.Snapshot, own session, err error) {
	found, err := one(ctx, on, func(r *row) {
		snap, own = s.snapshotOf(r)
	}, `SELECT `+snapshotColumns+` FROM {sessions} s JOIN {subjects} u ON u.no = s.subject_no WHERE s.sid = $1`, id)
	if err == nil && !found {
		err = counterfoil.ErrNotFound
	}
	return snap, own, err
}

// snapshotColumns are what snapshotOf reads.
const snapshotColumns = sessionColumns + `, ` + subjectColumns + `, (SELECT key_version FROM {meta}), {clock}`

func (s *Store) snapshotOf(r *row) (counterfoil.Snapshot, session) {
	own := readSession(r)
	sub := readSubject(r)
	if r.null() && r.err == nil {
		r.err = errNoMeta // moved: no snapshot, no access token
	}
	return counterfoil.Snapshot{Session: own.of(&sub), Subject: sub.Subject, KeyVersion: r.int(), Now: s.clockOr(r)}, own
}

func (s *sessions) Insert(ctx context.Context, add counterfoil.Session) (counterfoil.Snapshot, error) {
	snap, err := s.insert(ctx, add)
	if p, ok := s.in.(*pool); ok && lost(err) && ctx.Err() == nil {
		snap, err = s.insertAgain(ctx, p, add)
	}
	if err != nil {
		return counterfoil.Snapshot{}, failed("add session", err)
	}
	return snap, nil
}

// insertAgain is for a connection that was lost while nobody knew whether the
// session was added. That can be asked: its ID and secret are no other's.
func (s *sessions) insertAgain(ctx context.Context, p *pool, add counterfoil.Session) (counterfoil.Snapshot, error) {
	snap, err := s.insert(ctx, add)
	if !duplicate(err) {
		return snap, err
	}
	there, _, found := p.ask(ctx, add.ID)
	if found != nil || there.Session.SecretHash != add.SecretHash || there.Session.Subject != add.Subject {
		return snap, err
	}
	return there, nil
}

func (s *sessions) insert(ctx context.Context, add counterfoil.Session) (snap counterfoil.Snapshot, err error) {
	if add.ID == "" || add.Subject == "" {
		return snap, errors.New("ID and Subject must not be empty")
	}
	add = rounded(add)
	add.End = nil
	values, err := sessionValues(&add)
	if err != nil {
		return snap, err
	}
	if p, ok := s.in.(*pool); ok && add.ParentID == "" {
		if i, err := p.inserts.do(ctx, insertion{add: add, values: values}); err != nil || i.added {
			return i.snap, err
		}
	}
	run := s.in.once
	if add.ParentID != "" {
		run = s.in.tx
	}
	err = run(ctx, func(on runner) (err error) {
		if s.dialect == sqlite {
			snap, err = s.insertSQLite(ctx, on, add, values)
		} else {
			snap, err = s.insertPostgreSQL(ctx, on, add, values)
		}
		if err == nil && add.ParentID != "" {
			err = s.derive(ctx, on, add.ParentID)
		}
		return err
	})
	return snap, err
}

// insertColumns are those of sessionValues and what never changes.
const insertColumns = `sid, client_id, parent_sid, created_at, subject_no, ` + changeableColumns

// admit says whether a session may start that was given epoch0 (0: none), and
// with which it goes on. One that is too high would outlive sign-outs.
func admit(u *counterfoil.Subject, epoch0 int64) (int64, error) {
	switch {
	case epoch0 == 0:
		epoch0 = u.Epoch
	case epoch0 < u.SignedOutBelow:
		return 0, counterfoil.ErrSignedOutMeanwhile
	}
	if u.Disabled {
		return 0, counterfoil.ErrSubjectDisabled
	}
	return min(epoch0, u.Epoch), nil
}

// derive marks a session as having others derived from it, which it must
// still live for. The change of its row stands against an End that would
// otherwise not see the new one.
func (s *sessions) derive(ctx context.Context, on runner, parent string) error {
	changed, err := on.exec(ctx, `UPDATE {sessions} SET derived = $2 WHERE sid = $1 AND ended_at IS NULL
		AND epoch0 >= (SELECT u.signed_out_below FROM {subjects} u WHERE u.no = subject_no)`, parent, s.truth(true))
	if err != nil || changed == 1 {
		return err
	}
	if _, _, err := s.readSnapshot(ctx, on, parent); err != nil {
		return fmt.Errorf("parent: %w", err)
	}
	return fmt.Errorf("parent: %w", counterfoil.ErrSessionRevoked)
}

// truth is b as the dialect keeps it.
func (s *Store) truth(b bool) any {
	switch {
	case s.dialect == postgresql:
		return b
	case b:
		return 1
	}
	return 0
}

func (s *sessions) Update(ctx context.Context, id string, retain time.Duration,
	fn func(*counterfoil.Session) (bool, error)) (counterfoil.Session, []counterfoil.Revocation, error) {
	for {
		snap, own, err := s.snapshot(ctx, id)
		if err != nil {
			return counterfoil.Session{}, nil, failed("change session", err)
		}
		next := snap.Session
		stale, err := fn(&next)
		if err != nil {
			return counterfoil.Session{}, nil, err
		}
		next = rounded(next)
		was := snap.Session
		next.ID, next.Subject, next.ClientID, next.ParentID, next.CreatedAt, next.Epoch0, next.End =
			was.ID, was.Subject, was.ClientID, was.ParentID, was.CreatedAt, was.Epoch0, was.End
		revocations, err := s.replace(ctx, &snap.Subject, &next, own.rev, stale, retain)
		if errors.Is(err, errChanged) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return counterfoil.Session{}, nil, failed("change session", err)
		}
		return next, revocations, nil
	}
}

// replace writes a session unless it or what ends it changed since it was
// read. Locks are taken in the order subject, session, as everywhere.
func (s *sessions) replace(ctx context.Context, was *counterfoil.Subject, next *counterfoil.Session, rev int64,
	stale bool, retain time.Duration) (revocations []counterfoil.Revocation, err error) {
	values, err := sessionValues(next)
	if err != nil {
		return nil, err
	}
	if *next, err = copied(*next, values); err != nil {
		return nil, err
	}
	err = s.in.tx(ctx, func(on runner) error {
		revocations = nil
		lock := `{share}`
		if stale {
			lock = `{lock}`
		}
		found, err := one(ctx, on, func(*row) {}, `SELECT 1 FROM {subjects} u WHERE u.id = $1 AND u.signed_out_below = $2`+lock,
			was.ID, was.SignedOutBelow)
		if err != nil {
			return err
		}
		changed, err := on.exec(ctx, `UPDATE {sessions} SET rev = rev + 1, last_active_at = $3, idle_ms = $4, expires_at = $5,
			auth_time = $6, epoch0 = $7, secret_hash = $8, amr = $9, user_agent = $10, ip = $11, roles = $12, scope = $13, extra = $14, binding = $15
			WHERE sid = $1 AND rev = $2`, append([]any{next.ID, rev}, values...)...)
		if err != nil {
			return err
		}
		if !found || changed != 1 {
			return errChanged
		}
		if !stale {
			return nil
		}
		entry := counterfoil.Revocation{Kind: revoked.Subject, ID: was.ID}
		_, err = one(ctx, on, func(r *row) { entry.StaleBelow = r.int() },
			`UPDATE {subjects} SET epoch = epoch + 1 WHERE id = $1 RETURNING epoch`, was.ID)
		if err != nil {
			return err
		}
		err = s.report(ctx, on, &entry, retain)
		revocations = []counterfoil.Revocation{entry}
		return err
	})
	return revocations, err
}

// report writes an entry of the feed and completes it. The transaction has
// changed a row before, and so has its number before the position is drawn.
func (s *Store) report(ctx context.Context, on runner, e *counterfoil.Revocation, retain time.Duration) error {
	now, err := s.instant(ctx, on)
	if err != nil {
		return err
	}
	found, err := one(ctx, on, func(r *row) { e.Position, e.Until = r.int(), r.time() },
		`INSERT INTO {feed} (kind, ref, stale_below, revoked_below, except_sid, until)
		SELECT $1, $2, $3, $4, $5, $6 + CASE WHEN m.retain_ms > $7 THEN m.retain_ms ELSE $7 END FROM {meta} m RETURNING id, until`,
		e.Kind.String(), e.ID, e.StaleBelow, e.RevokedBelow, textOrNull(e.Except), now.UnixMilli(), retain.Milliseconds())
	if err == nil && !found {
		err = errors.New("the row in table meta is missing")
	}
	return err
}

func (s *sessions) End(ctx context.Context, q counterfoil.EndRequest) (counterfoil.Ended, error) {
	var ended counterfoil.Ended
	var err error
	if s.dialect == sqlite {
		err = s.in.tx(ctx, func(on runner) (err error) {
			ended, err = s.endTree(ctx, on, q)
			return err
		})
	} else {
		ended, err = s.endPostgreSQL(ctx, q)
	}
	if err != nil {
		return counterfoil.Ended{}, failed("end session", err)
	}
	return ended, nil
}

// live is the condition under which an unended session may be ended.
const live = ` AND ended_at IS NULL AND epoch0 >= (SELECT u.signed_out_below FROM {subjects} u WHERE u.no = subject_no)`

// endTree ends a session and those derived from it, statement by statement:
// each sees what was committed before it, also while it waited for a lock.
func (s *sessions) endTree(ctx context.Context, on runner, q counterfoil.EndRequest) (ended counterfoil.Ended, err error) {
	now, err := s.instant(ctx, on)
	if err != nil {
		return ended, err
	}
	q.End.At = now
	var own session
	ended.Changed, err = one(ctx, on, func(r *row) {
		own = readSession(r)
		own.Subject = r.text()
		ended.Session = own.Session
	}, `UPDATE {sessions} SET ended_at = $2, end_reason = $3, end_actor = $4, rev = rev + 1
		WHERE sid = $1 AND ($5 = '' OR EXISTS (SELECT 1 FROM {subjects} o WHERE o.no = subject_no AND o.id = $5))`+live+`
		RETURNING `+keptColumns+`, (SELECT o.id FROM {subjects} o WHERE o.no = subject_no)`,
		q.ID, now.UnixMilli(), string(q.End.Reason), q.End.Actor, q.Subject)
	if err != nil {
		return ended, err
	}
	if !ended.Changed {
		ended.Session, err = s.alreadyEnded(ctx, on, q)
		return ended, err
	}
	dead := []string{q.ID}
	if own.derived {
		below, err := s.endBelow(ctx, on, q.ID, q.End)
		if err != nil {
			return ended, err
		}
		dead = append(dead, below...)
	}
	for _, sid := range dead {
		entry := counterfoil.Revocation{Kind: revoked.Session, ID: sid}
		if err := s.report(ctx, on, &entry, q.Retain); err != nil {
			return ended, err
		}
		ended.Revocations = append(ended.Revocations, entry)
	}
	return ended, nil
}

// alreadyEnded tells why a session was not ended.
func (s *sessions) alreadyEnded(ctx context.Context, on runner, q counterfoil.EndRequest) (counterfoil.Session, error) {
	snap, _, err := s.readSnapshot(ctx, on, q.ID)
	if err == nil && q.Subject != "" && snap.Session.Subject != q.Subject {
		err = counterfoil.ErrNotFound
	}
	if err != nil {
		return counterfoil.Session{}, err
	}
	return snap.Session, nil
}

// endBelow ends the sessions derived from one that has ended, level by level.
func (s *sessions) endBelow(ctx context.Context, on runner, parent string, end counterfoil.End) (dead []string, err error) {
	for parents := []string{parent}; len(parents) > 0; parents = parents[1:] {
		err := each(ctx, on, func(r *row) error {
			sid := r.text()
			dead = append(dead, sid)
			parents = append(parents, sid)
			return nil
		}, `UPDATE {sessions} SET ended_at = $2, end_reason = $3, end_actor = $4, rev = rev + 1
			WHERE parent_sid = $1`+live+` RETURNING sid`, parents[0], end.At.UnixMilli(), string(end.Reason), end.Actor)
		if err != nil {
			return nil, err
		}
	}
	return dead, nil
}

func (s *sessions) Advance(ctx context.Context, a counterfoil.Advance) (counterfoil.Advanced, error) {
	if a.Subject == "" {
		return counterfoil.Advanced{}, failed("advance subject", errors.New("Subject must not be empty"))
	}
	var done counterfoil.Advanced
	// The row is there but for the first time; making it takes more than a statement.
	err := s.in.once(ctx, func(on runner) (err error) {
		done, err = s.advance(ctx, on, a)
		return err
	})
	if errors.Is(err, errNoSubject) {
		err = s.in.tx(ctx, func(on runner) (err error) {
			if err := s.makeSubject(ctx, on, a.Subject); err != nil {
				return err
			}
			done, err = s.advance(ctx, on, a)
			return err
		})
	}
	if err != nil {
		return counterfoil.Advanced{}, failed("advance subject", err)
	}
	return done, nil
}

// errNoSubject says that the subject has no row yet.
var errNoSubject = errors.New("the subject has no row")

// advance carries out an Advance of a subject that has a row.
func (s *Store) advance(ctx context.Context, on runner, a counterfoil.Advance) (counterfoil.Advanced, error) {
	if !a.SignOut {
		a.Keep = nil
	}
	if s.dialect == sqlite {
		return s.advanceSQLite(ctx, on, a)
	}
	return s.advancePostgreSQL(ctx, on, a)
}

// makeSubject makes the row where it is missing. On PostgreSQL the lock keeps
// Subject from telling, until the commit, an epoch that an Advance in this
// transaction would not exceed.
func (s *Store) makeSubject(ctx context.Context, on runner, id string) error {
	if s.dialect == postgresql {
		err := each(ctx, on, func(*row) error { return nil }, `SELECT pg_advisory_xact_lock(`+subjectLock+`)`, id)
		if err != nil {
			return err
		}
	}
	_, err := on.exec(ctx, `INSERT INTO {subjects} (id, epoch) SELECT $1, {floor} + 1 WHERE true ON CONFLICT (id) DO NOTHING`, id)
	return err
}

func (s *sessions) Subject(ctx context.Context, id string) (counterfoil.Subject, error) {
	var sub counterfoil.Subject
	err := s.in.view(ctx, func(on runner) (err error) {
		if s.dialect == sqlite {
			sub, err = s.subjectSQLite(ctx, on, id)
		} else {
			sub, err = s.subjectPostgreSQL(ctx, on, id)
		}
		return err
	})
	if err != nil {
		return counterfoil.Subject{}, failed("read subject", err)
	}
	return sub, nil
}
