package sqlstore

import (
	"context"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// On SQLite a call is a few statements under the one write lock: nothing
// comes between them.

func (s *sessions) insertSQLite(ctx context.Context, on runner, add counterfoil.Session, values []any) (snap counterfoil.Snapshot, err error) {
	var sub subject
	read := func() error {
		found, err := one(ctx, on, func(r *row) { snap.KeyVersion, sub = r.int(), readSubject(r) },
			`SELECT m.key_version, `+subjectColumns+` FROM {meta} m LEFT JOIN {subjects} u ON u.id = $1`, add.Subject)
		if err == nil && !found {
			err = s.noMeta(ctx, on)
		}
		return err
	}
	if err := read(); err != nil {
		return snap, err
	}
	if sub.no == 0 {
		if err := s.makeSubject(ctx, on, add.Subject); err != nil {
			return snap, err
		}
		if err := read(); err != nil {
			return snap, err
		}
	}
	if add.Epoch0, err = admit(&sub.Subject, add.Epoch0); err != nil {
		return snap, err
	}
	values[epoch0Value] = add.Epoch0
	_, err = on.exec(ctx, `INSERT INTO {sessions} (`+insertColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)`,
		append([]any{add.ID, add.ClientID, textOrNull(add.ParentID), add.CreatedAt.UnixMilli(), sub.no}, values...)...)
	if err != nil {
		return snap, err
	}
	snap.Subject, snap.Now = sub.Subject, fromMillis(s.clock().UnixMilli())
	snap.Session, err = copied(add, values)
	return snap, err
}

func (s *Store) advanceSQLite(ctx context.Context, on runner, a counterfoil.Advance) (done counterfoil.Advanced, err error) {
	var sub subject
	found, err := one(ctx, on, func(r *row) { sub = readSubject(r) },
		`SELECT `+subjectColumns+` FROM {subjects} u WHERE u.id = $1`, a.Subject)
	if err != nil {
		return done, err
	}
	if !found {
		return done, errNoSubject
	}
	if a.SignOut && sub.SignedOut != nil {
		if err := s.settleEnds(ctx, on, &sub); err != nil {
			return done, err
		}
	}
	now := fromMillis(s.clock().UnixMilli())
	endedBelow := sub.SignedOutBelow
	sub.Epoch++
	entry := counterfoil.Revocation{Kind: revoked.Subject, ID: a.Subject, StaleBelow: sub.Epoch}
	var sweepAt any
	if a.SignOut {
		sub.SignedOutBelow, entry.RevokedBelow = sub.Epoch, sub.Epoch
		sub.SignedOut = &counterfoil.End{Reason: a.End.Reason, Actor: a.End.Actor, At: now}
		sweepAt = now.UnixMilli()
	}
	if a.Rights != nil {
		sub.Rights = *a.Rights
	}
	if err := s.writeSubject(ctx, on, &sub, sweepAt); err != nil {
		return done, err
	}
	if a.Keep != nil {
		keep, err := keepValues(a.Keep)
		if err != nil {
			return done, err
		}
		var kept session
		found, err := one(ctx, on, func(r *row) { kept = readSession(r) },
			`UPDATE {sessions} AS s SET epoch0 = $3, rev = rev + 1, secret_hash = coalesce($5, secret_hash),
				auth_time = coalesce($6, auth_time), amr = coalesce($7, amr)
			WHERE sid = $1 AND subject_no = $2 AND ended_at IS NULL AND epoch0 >= $4
			RETURNING `+keptColumns,
			append([]any{a.Keep.ID, sub.no, sub.Epoch, endedBelow}, keep...)...)
		if err != nil {
			return done, err
		}
		if found {
			s := kept.of(&sub)
			done.Kept, entry.Except = &s, s.ID
		}
	}
	done.Subject = sub.Subject
	err = s.report(ctx, on, &entry, a.Retain)
	done.Revocation = entry
	return done, err
}

// settleEnds writes the end of those sessions that ended by the subject's row
// alone into their own, before a later sign-out takes its place. There are
// none once they are purged.
func (s *Store) settleEnds(ctx context.Context, on runner, u *subject) error {
	_, err := on.exec(ctx, `UPDATE {sessions} SET ended_at = $3, end_reason = $4, end_actor = $5, rev = rev + 1
		WHERE subject_no = $1 AND ended_at IS NULL AND epoch0 < $2
			AND EXISTS (SELECT 1 FROM {subjects} WHERE no = $1 AND sweep_at IS NOT NULL)`,
		u.no, u.SignedOutBelow, u.SignedOut.At.UnixMilli(), string(u.SignedOut.Reason), u.SignedOut.Actor)
	return err
}

// writeSubject writes a row that was changed under the write lock.
func (s *Store) writeSubject(ctx context.Context, on runner, u *subject, sweepAt any) error {
	roles, scope, err := rightsValues(&u.Rights)
	if err != nil {
		return err
	}
	var at, reason, actor any
	if u.SignedOut != nil {
		at, reason, actor = u.SignedOut.At.UnixMilli(), string(u.SignedOut.Reason), u.SignedOut.Actor
	}
	_, err = on.exec(ctx, `UPDATE {subjects} SET epoch = $2, signed_out_below = $3, signed_out_at = $4, signed_out_reason = $5,
		signed_out_actor = $6, roles = $7, scope = $8, disabled = $9, sweep_at = coalesce($10, sweep_at) WHERE no = $1`,
		u.no, u.Epoch, u.SignedOutBelow, at, reason, actor, roles, scope, s.truth(u.Disabled), sweepAt)
	return err
}

func (s *sessions) subjectSQLite(ctx context.Context, on runner, id string) (counterfoil.Subject, error) {
	var sub subject
	var floor int64
	// Both from one snapshot: an Advance that makes the row meanwhile is seen
	// by both or by neither, and so goes above what is told here.
	found, err := one(ctx, on, func(r *row) { floor, sub = r.int(), readSubject(r) },
		`SELECT {floor}, `+subjectColumns+` FROM {meta} m LEFT JOIN {subjects} u ON u.id = $1`, id)
	if err == nil && !found {
		err = s.noMeta(ctx, on)
	}
	if sub.no == 0 {
		return counterfoil.Subject{ID: id, Epoch: floor + 1}, err
	}
	return sub.Subject, err
}

// keepValues are hash, time and methods of a kept session, nil for no change.
func keepValues(k *counterfoil.Keep) ([]any, error) {
	amr, err := listOrNull(k.Methods)
	return []any{hashOrNull(k.SecretHash), millisOrNull(k.AuthTime.Truncate(time.Millisecond)), amr}, err
}

func rightsValues(g *counterfoil.Rights) (roles, scope any, err error) {
	if roles, err = listOrNull(g.Roles); err != nil {
		return nil, nil, err
	}
	scope, err = listOrNull(g.Scope)
	return roles, scope, err
}
