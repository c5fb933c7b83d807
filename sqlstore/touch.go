package sqlstore

import (
	"context"

	"github.com/counterfoil/counterfoil"
)

func (s *sessions) Touch(ctx context.Context, touches []counterfoil.Touch) error {
	if len(touches) == 0 {
		return nil
	}
	run := s.touchPostgreSQL
	if s.dialect == sqlite {
		run = s.touchSQLite
	}
	if err := s.in.again(ctx, func(on runner) error { return run(ctx, on, touches) }); err != nil {
		return failed("touch sessions", err)
	}
	return nil
}

func (s *sessions) touchSQLite(ctx context.Context, on runner, touches []counterfoil.Touch) error {
	for _, t := range touches {
		_, err := on.exec(ctx, `UPDATE {sessions} SET last_active_at = $2, rev = rev + 1 WHERE sid = $1 AND last_active_at < $2`+live,
			t.ID, t.At.UnixMilli())
		if err != nil {
			return err
		}
	}
	return nil
}

// touchPostgreSQL locks the rows in the order of their ids, so that two
// batches do not wait for each other.
func (s *sessions) touchPostgreSQL(ctx context.Context, on runner, touches []counterfoil.Touch) error {
	type touch struct {
		ID string `json:"id"`
		At int64  `json:"at"`
	}
	batch := make([]touch, len(touches))
	for i, t := range touches {
		batch[i] = touch{t.ID, t.At.UnixMilli()}
	}
	list, err := encode(batch)
	if err != nil {
		return err
	}
	_, err = on.exec(ctx, `WITH t AS (
			SELECT id, max(at) AS at FROM json_to_recordset($1::json) AS t (id text, at bigint) GROUP BY id
		), locked AS MATERIALIZED (
			SELECT s.sid, t.at FROM t JOIN {sessions} s ON s.sid = t.id JOIN {subjects} u ON u.no = s.subject_no
			WHERE s.ended_at IS NULL AND s.epoch0 >= u.signed_out_below AND s.last_active_at < t.at
			ORDER BY s.sid FOR NO KEY UPDATE OF s
		)
		UPDATE {sessions} s SET last_active_at = locked.at, rev = s.rev + 1 FROM locked
		WHERE s.sid = locked.sid AND s.ended_at IS NULL AND s.last_active_at < locked.at`, list)
	return err
}
