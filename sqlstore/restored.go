package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// ReasonRestored is why sessions end that a backup brought back.
const ReasonRestored counterfoil.Reason = "restored"

// Backup is what a database holds that was restored from a backup.
type Backup struct {
	Subjects int64
	Sessions int64 // that would be good
	Keys     int64 // that sign or verify
	APIKeys  int64 // that are good
	Resets   int64 // password-reset tokens that wait
}

// Restoration says what to do with a database that was restored.
type Restoration struct {
	// KeepSessions is for a restore that lost no commit: a session that was
	// revoked after the backup was made would be alive again.
	KeepSessions bool
	// Elsewhere says that sessions are kept in another store, whose copies of
	// subjects the caller takes away.
	Elsewhere bool
	Actor     string // who did it, for sessions that end
}

// Restored is what was done. Number is the new timeline, and what versions
// and epochs begin with.
type Restored struct {
	Backup
	Number int64
	Kept   bool
	Took   time.Duration
}

// Backup counts what [Store.Restored] would change. It opens the store. Of
// sessions that are kept elsewhere it knows nothing.
func (s *Store) Backup(ctx context.Context, r Restoration) (b Backup, err error) {
	ctx = context.WithValue(ctx, patience{}, true) // it looks at every row
	if err := s.openRestored(ctx, r.Elsewhere); err != nil {
		return b, failed("look at a restored database", err)
	}
	err = s.engine.view(ctx, func(on runner) (err error) {
		b, err = s.countBackup(ctx, on)
		return err
	})
	if err != nil {
		return b, failed("look at a restored database", err)
	}
	return b, nil
}

func (s *Store) countBackup(ctx context.Context, on runner) (b Backup, err error) {
	now, err := s.now(ctx, on)
	if err != nil {
		return b, err
	}
	_, err = one(ctx, on, func(r *row) {
		b.Subjects, b.Sessions, b.Keys, b.APIKeys, b.Resets = r.int(), r.int(), r.int(), r.int(), r.int()
	}, `SELECT (SELECT count(*) FROM {subjects}),
		(SELECT count(*) FROM {sessions} s JOIN {subjects} u ON u.no = s.subject_no
			WHERE s.ended_at IS NULL AND s.epoch0 >= u.signed_out_below AND s.expires_at > $1 AND s.last_active_at + s.idle_ms > $1),
		(SELECT count(*) FROM {keys} WHERE state <> '`+string(counterfoil.KeyRevoked)+`'),
		(SELECT count(*) FROM {api_keys} WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)),
		(SELECT count(*) FROM {users} WHERE reset_hash IS NOT NULL AND reset_expires_at > $1)`, now.UnixMilli())
	return b, err
}

// openRestored refuses what a move left: the backup is then of no use, or of a
// moment in which writes were refused.
func (s *Store) openRestored(ctx context.Context, elsewhere bool) error {
	s.migrate, s.moving = false, true
	if err := s.open(ctx); err != nil {
		return err
	}
	err := s.engine.view(ctx, func(on runner) error {
		_, err := s.now(ctx, on)
		if err == nil && !elsewhere {
			err = s.refuseElsewhere(ctx, on)
		}
		return err
	})
	if err != nil {
		return err
	}
	state, err := s.MoveState(ctx)
	if err == nil && state.Role != "" {
		err = fmt.Errorf("the backup was made while a move to %s refused writes: run counterfoil move --abort first", state.Target)
	}
	return err
}

// Restored makes a database usable that was restored from a backup, in one
// transaction: what happened after the backup was made is not known there, and
// nothing of it may come back to life.
//
//   - Timeline, key version, the next feed position and all epochs become one
//     number, Unix microseconds, above whatever they were.
//   - Every signing key is revoked, so that access tokens from before are
//     refused everywhere; a server makes new ones when it starts.
//   - Every session ends, unless they are to be kept.
//   - What is used once is gone: password-reset tokens, passkey ceremonies.
func (s *Store) Restored(ctx context.Context, r Restoration) (done Restored, err error) {
	began := time.Now()
	ctx = context.WithValue(ctx, patience{}, true) // it changes every row
	if err := s.openRestored(ctx, r.Elsewhere); err != nil {
		return done, failed("mend a restored database", err)
	}
	err = s.engine.tx(ctx, func(on runner) (err error) {
		done, err = s.restore(ctx, on, r)
		return err
	})
	if err != nil {
		return Restored{}, failed("mend a restored database", err)
	}
	done.Took = time.Since(began)
	return done, nil
}

func (s *Store) restore(ctx context.Context, on runner, r Restoration) (done Restored, err error) {
	run := func(query string, args ...any) {
		if err == nil {
			_, err = on.exec(ctx, query, args...)
		}
	}
	if s.dialect == postgresql {
		run(`LOCK TABLE {meta}, {subjects}, {sessions}, {keys}, {feed}, {journal} IN EXCLUSIVE MODE`)
	}
	if err != nil {
		return done, err
	}
	if done.Backup, err = s.countBackup(ctx, on); err != nil {
		return done, err
	}
	now, err := s.now(ctx, on)
	if err != nil {
		return done, err
	}
	if done.Number, err = s.restoreNumber(ctx, on, now); err != nil {
		return done, err
	}
	done.Kept = r.KeepSessions
	n, at := done.Number, now.UnixMilli()
	if !r.KeepSessions {
		// Those that ended by their subject's row alone keep their own reason.
		run(`UPDATE {sessions} AS s SET ended_at = u.signed_out_at, end_reason = u.signed_out_reason, end_actor = u.signed_out_actor, rev = s.rev + 1
			FROM {subjects} u WHERE u.no = s.subject_no AND s.ended_at IS NULL AND s.epoch0 < u.signed_out_below AND u.signed_out_at IS NOT NULL`)
		run(`UPDATE {subjects} SET epoch = $1, signed_out_below = $1, signed_out_at = $2, signed_out_reason = $3, signed_out_actor = $4, sweep_at = $2`,
			n, at, string(ReasonRestored), r.Actor)
	} else {
		run(`UPDATE {subjects} SET epoch = $1`, n)
	}
	run(`UPDATE {meta} SET timeline = $1, key_version = $1`, n)
	if !r.KeepSessions {
		// All that it could tell is over. Else what was not told yet still counts.
		run(`UPDATE {meta} SET journal_from = $1`, at)
		run(`DELETE FROM {journal}`)
	}
	run(`UPDATE {users} SET reset_hash = NULL, reset_expires_at = NULL, rev = rev + 1 WHERE reset_hash IS NOT NULL`)
	run(`DELETE FROM {ceremonies}`)
	if err != nil {
		return done, err
	}
	return done, s.revokeAllKeys(ctx, on, n)
}

// restoreNumber is above everything that grows.
func (s *Store) restoreNumber(ctx context.Context, on runner, now time.Time) (n int64, err error) {
	n = now.UnixMicro()
	err = each(ctx, on, func(r *row) error {
		n = max(n, r.int()+1)
		return nil
	}, `SELECT timeline FROM {meta} UNION ALL SELECT key_version FROM {meta} UNION ALL SELECT {floor}
		UNION ALL SELECT coalesce(max(epoch), 0) FROM {subjects} UNION ALL SELECT coalesce(max(signed_out_below), 0) FROM {subjects}
		UNION ALL SELECT coalesce(max(epoch0), 0) FROM {sessions}`)
	if err == nil && n < 0 {
		err = errors.New("there is no number left above those in use")
	}
	return n, err
}

// revokeAllKeys ends every access token from before, whichever session it is of.
func (s *Store) revokeAllKeys(ctx context.Context, on runner, n int64) error {
	if err := s.raiseNumbers(ctx, on, movedTable{name: "feed", key: "id"}, n-1); err != nil {
		return err
	}
	var kids []string
	err := each(ctx, on, func(r *row) error {
		kids = append(kids, r.text())
		return nil
	}, `UPDATE {keys} SET state = '`+string(counterfoil.KeyRevoked)+`', sealed = NULL, until = NULL WHERE state <> '`+string(counterfoil.KeyRevoked)+`' RETURNING kid`)
	if err != nil {
		return err
	}
	for _, kid := range kids {
		entry := counterfoil.Revocation{Kind: revoked.Key, ID: kid}
		if err := s.report(ctx, on, &entry, time.Hour); err != nil { // it never leaves
			return err
		}
	}
	return nil
}
