package sqlstore

import (
	"context"
	"errors"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// On PostgreSQL a call is one statement where it can be, under READ COMMITTED
// too. What a statement read before it waited for a row lock may be old; what
// the locking CTE itself returns is not, and all else here is decided by that.

// insertPostgreSQL locks the subject's row against any Advance until commit:
// one that was first is seen, one that comes later sees the session, whose
// epoch0 is then below its new signed_out_below. A new row is made under the
// lock of makeSubject.
func (s *sessions) insertPostgreSQL(ctx context.Context, on runner, add counterfoil.Session, values []any) (snap counterfoil.Snapshot, err error) {
	var sub subject
	var inserted bool
	given := add.Epoch0
	_, err = one(ctx, on, func(r *row) {
		sub = readSubject(r)
		snap.KeyVersion, snap.Now = r.int(), s.clockOr(r)
		if inserted = !r.null(); inserted {
			add.Epoch0 = r.int()
		}
	}, `WITH old AS MATERIALIZED (
			SELECT `+subjectColumns+` FROM {subjects} u WHERE u.id = $1 FOR SHARE OF u
		), new AS (
			INSERT INTO {subjects} AS u (id, epoch) SELECT $1, {floor} + 1
			WHERE CASE WHEN EXISTS (SELECT 1 FROM old) THEN false ELSE pg_advisory_xact_lock(`+subjectLock+`)::text IS NOT NULL END
			ON CONFLICT (id) DO UPDATE SET epoch = u.epoch
			RETURNING `+subjectColumns+`
		), u AS (
			SELECT * FROM old UNION ALL SELECT * FROM new
		), added AS (
			INSERT INTO {sessions} (sid, client_id, parent_sid, created_at, subject_no, `+changeableColumns+`)
			SELECT $2, $3, $4, $5::bigint, u.no, $6::bigint, $7::bigint, $8::bigint, $9::bigint,
				CASE WHEN $10::bigint = 0 THEN u.epoch ELSE least($10::bigint, u.epoch) END,
				$11::bytea, $12, $13, $14, $15, $16, $17, $18::bytea
			FROM u WHERE NOT u.disabled AND ($10::bigint = 0 OR $10::bigint >= u.signed_out_below)
			RETURNING epoch0
		)
		SELECT u.*, m.key_version, {clock}, (SELECT epoch0 FROM added) FROM u CROSS JOIN {meta} m`,
		append([]any{add.Subject, add.ID, add.ClientID, textOrNull(add.ParentID), add.CreatedAt.UnixMilli()}, values...)...)
	if err != nil {
		return snap, err
	}
	if !inserted {
		if _, err := admit(&sub.Subject, given); err != nil {
			return snap, err
		}
		return snap, errors.New("the session was not added")
	}
	snap.Subject = sub.Subject
	snap.Session, err = copied(add, values)
	return snap, err
}

// endPostgreSQL ends a session that no other was derived from in one
// statement. Those derived from it could be committed while that statement
// waits, unseen by it: then endTree looks for them after the lock is held.
func (s *sessions) endPostgreSQL(ctx context.Context, q counterfoil.EndRequest) (ended counterfoil.Ended, err error) {
	if p, ok := s.in.(*pool); ok {
		if e, err := p.ends.do(ctx, ending{q: q}); e.ended.Changed || err != nil && !lost(err) {
			return e.ended, err
		}
	}
	for {
		err = s.in.again(ctx, func(on runner) (err error) {
			ended, err = s.endOne(ctx, on, q)
			return err
		})
		if err != nil || ended.Changed {
			return ended, err
		}
		snap, own, err := s.snapshot(ctx, q.ID)
		switch {
		case err != nil:
			return ended, err
		case q.Subject != "" && snap.Session.Subject != q.Subject:
			return ended, counterfoil.ErrNotFound
		case snap.Session.End != nil:
			ended.Session = snap.Session
			return ended, nil
		case own.derived:
			err = s.in.tx(ctx, func(on runner) (err error) {
				ended, err = s.endTree(ctx, on, q)
				return err
			})
			return ended, err
		case ctx.Err() != nil:
			return ended, context.Cause(ctx)
		}
		// It appeared after the statement looked: once more.
	}
}

func (s *sessions) endOne(ctx context.Context, on runner, q counterfoil.EndRequest) (ended counterfoil.Ended, err error) {
	_, err = one(ctx, on, func(r *row) {
		own := readSession(r)
		ended.Session, ended.Changed = own.Session, true
		ended.Session.Subject = r.text()
		ended.Revocations = []counterfoil.Revocation{{Kind: revoked.Session, ID: own.ID, Position: r.int(), Until: r.time()}}
	}, `WITH t AS MATERIALIZED (
			SELECT {now} AS now, greatest($6::bigint, (SELECT retain_ms FROM {meta})) AS retain
		), s AS (
			UPDATE {sessions} s SET ended_at = t.now, end_reason = $4, end_actor = $5, rev = s.rev + 1
			FROM {subjects} u, t
			WHERE s.sid = $2 AND u.no = s.subject_no AND ($3 = '' OR u.id = $3)
				AND s.ended_at IS NULL AND s.epoch0 >= u.signed_out_below AND NOT s.derived
			RETURNING `+sessionColumns+`, u.id
		), f AS (
			INSERT INTO {feed} (kind, ref, until) SELECT 's', s.sid, t.now + t.retain FROM s, t RETURNING id, until
		)
		SELECT s.*, f.id, f.until FROM s CROSS JOIN f`,
		s.clockArgument(), q.ID, q.Subject, string(q.End.Reason), q.End.Actor, q.Retain.Milliseconds())
	return ended, err
}

// advancePostgreSQL takes the subject's lock first and goes on with what the
// row is then; the kept session is kept only if its row, as it is then too,
// has not ended. The position is drawn last.
//
// Sessions that ended by the subject's row alone get their end written down
// before a later sign-out takes its place. Where that row changed while the
// statement waited for the lock, sessions that it ended may be too new to be
// seen; then nothing is done and the statement is repeated.
func (s *Store) advancePostgreSQL(ctx context.Context, on runner, a counterfoil.Advance) (done counterfoil.Advanced, err error) {
	var keepID string
	keep := []any{nil, nil, nil}
	if a.Keep != nil {
		keepID = a.Keep.ID
		if keep, err = keepValues(a.Keep); err != nil {
			return done, err
		}
	}
	var rights counterfoil.Rights
	if a.Rights != nil {
		rights = *a.Rights
	}
	roles, scope, err := rightsValues(&rights)
	if err != nil {
		return done, err
	}
	statement := func() (found bool, err error) {
		return one(ctx, on, func(r *row) {
			sub := readSubject(r)
			done = counterfoil.Advanced{Subject: sub.Subject, Revocation: counterfoil.Revocation{
				Kind: revoked.Subject, ID: sub.ID, StaleBelow: sub.Epoch, Position: r.int(), Until: r.time()}}
			if a.SignOut {
				done.Revocation.RevokedBelow = sub.Epoch
			}
			if !r.null() {
				own := readSession(r)
				kept := own.of(&sub)
				done.Kept, done.Revocation.Except = &kept, kept.ID
			}
		}, `WITH t AS MATERIALIZED (
			SELECT {now} AS now, greatest($10::bigint, (SELECT retain_ms FROM {meta})) AS retain
		), seen AS MATERIALIZED (
			SELECT signed_out_below AS below FROM {subjects} WHERE id = $2
		), locked AS MATERIALIZED (
			SELECT no, signed_out_below AS below, signed_out_at, signed_out_reason, signed_out_actor, sweep_at
			FROM {subjects} WHERE id = $2 FOR NO KEY UPDATE
		), old AS MATERIALIZED (
			SELECT locked.* FROM locked JOIN seen ON seen.below = locked.below OR NOT $3::boolean
		), past AS (
			UPDATE {sessions} s SET ended_at = old.signed_out_at, end_reason = old.signed_out_reason, end_actor = old.signed_out_actor, rev = s.rev + 1
			FROM old WHERE $3 AND old.signed_out_at IS NOT NULL AND old.sweep_at IS NOT NULL
				AND s.subject_no = old.no AND s.ended_at IS NULL AND s.epoch0 < old.below
		), u AS (
			UPDATE {subjects} u SET epoch = u.epoch + 1,
				signed_out_below = CASE WHEN $3::boolean THEN u.epoch + 1 ELSE u.signed_out_below END,
				signed_out_at = CASE WHEN $3 THEN t.now ELSE u.signed_out_at END,
				signed_out_reason = CASE WHEN $3 THEN $4 ELSE u.signed_out_reason END,
				signed_out_actor = CASE WHEN $3 THEN $5 ELSE u.signed_out_actor END,
				sweep_at = CASE WHEN $3 THEN t.now ELSE u.sweep_at END,
				roles = CASE WHEN $6::boolean THEN $7 ELSE u.roles END,
				scope = CASE WHEN $6 THEN $8 ELSE u.scope END,
				disabled = CASE WHEN $6 THEN $9::boolean ELSE u.disabled END
			FROM old, t WHERE u.no = old.no
			RETURNING `+subjectColumns+`
		), s AS (
			UPDATE {sessions} s SET epoch0 = u.epoch, rev = s.rev + 1, secret_hash = coalesce($12::bytea, s.secret_hash),
				auth_time = coalesce($13::bigint, s.auth_time), amr = coalesce($14, s.amr)
			FROM u, old WHERE s.sid = $11 AND s.subject_no = u.no AND s.ended_at IS NULL AND s.epoch0 >= old.below
			RETURNING `+sessionColumns+`
		), f AS (
			INSERT INTO {feed} (kind, ref, stale_below, revoked_below, except_sid, until)
			SELECT 'u', u.id, u.epoch, CASE WHEN $3 THEN u.epoch ELSE 0 END, s.sid, t.now + t.retain
			FROM u CROSS JOIN t LEFT JOIN s ON true
			RETURNING id, until
		)
		SELECT u.*, f.id, f.until, s.* FROM u CROSS JOIN f LEFT JOIN s ON true`,
			append([]any{s.clockArgument(), a.Subject, a.SignOut, string(a.End.Reason), a.End.Actor,
				a.Rights != nil, roles, scope, rights.Disabled, a.Retain.Milliseconds(), keepID}, keep...)...)
	}
	found, err := statement()
	if err == nil && !found { // in a transaction the lock is held by now
		found, err = statement()
	}
	if err == nil && !found {
		err = errNoSubject
	}
	return done, err
}

// errUndo undoes a savepoint though nothing failed.
var errUndo = errors.New("undone on purpose")

// subjectLock names a subject among PostgreSQL's advisory locks.
const subjectLock = `hashtextextended('{subjects}' || $1::text, 0)`

// subjectPostgreSQL tells of a subject without a row the epoch after the
// highest position given. While another transaction is making the row that
// would be too much: an Advance in it, decided before positions given since,
// would not end the sign-in that holds this epoch. Then 1 is told, which every
// Advance ends. The lock is held until the position was read, so that no
// Advance decides between the two.
func (s *sessions) subjectPostgreSQL(ctx context.Context, on runner, id string) (counterfoil.Subject, error) {
	var sub subject
	found, err := one(ctx, on, func(r *row) { sub = readSubject(r) },
		`SELECT `+subjectColumns+` FROM {subjects} u WHERE u.id = $1`, id)
	if found || err != nil {
		return sub.Subject, err
	}
	sub.ID = id
	guess := func(on runner) error {
		_, err := one(ctx, on, func(r *row) { sub.Epoch = r.int() },
			`SELECT CASE WHEN pg_try_advisory_xact_lock_shared(`+subjectLock+`) THEN {floor} + 1 ELSE 1 END`, id)
		return err
	}
	if _, ok := s.in.(joined); !ok {
		return sub.Subject, guess(on)
	}
	// The application's transaction may be long: undoing the savepoint lets the lock go.
	err = inSavepoint(ctx, on, func(on runner) error {
		if err := guess(on); err != nil {
			return err
		}
		return errUndo
	})
	if errors.Is(err, errUndo) {
		err = nil
	}
	return sub.Subject, err
}
