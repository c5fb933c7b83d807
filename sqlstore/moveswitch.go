package sqlstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// remainder is what is no row of a table.
type remainder struct {
	Meta    map[string]any   // the one row of table meta
	Numbers map[string]int64 // the highest that was given for the key of a table
}

func (m *Move) readRest(ctx context.Context) (rest remainder, err error) {
	metas, err := m.from.readRecords(ctx, "meta", m.meta.from, nil)
	if err != nil {
		return rest, err
	}
	if len(metas) != 1 {
		return rest, errNoMeta
	}
	if err := metas[0].fits(m.to.dialect, m.meta.to); err != nil {
		return rest, fmt.Errorf("table meta: %w", err)
	}
	rest.Meta = map[string]any{}
	for i, c := range m.meta.from {
		rest.Meta[c.name] = metas[0][i]
	}
	rest.Numbers = map[string]int64{}
	err = m.from.engine.view(ctx, func(on runner) error {
		for _, t := range m.tables {
			if !t.numbered {
				continue
			}
			_, err := one(ctx, on, func(r *row) { rest.Numbers[t.name] = r.int() }, m.from.highest(t.movedTable))
			if err != nil {
				return err
			}
		}
		return nil
	})
	return rest, err
}

// highest asks for the highest number that was given.
func (s *Store) highest(t movedTable) string {
	most := `coalesce((SELECT max(` + t.key + `) FROM {` + t.name + `}), 0)`
	if s.dialect == sqlite {
		return `SELECT max(` + most + `, coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{` + t.name + `}'), 0))`
	}
	return `SELECT greatest(` + most + `, coalesce(pg_sequence_last_value(` + sequence(t) + `), 0))`
}

// sequence is that of a table on PostgreSQL.
func sequence(t movedTable) string {
	if t.name == "feed" {
		return `'{feed_position}'::regclass`
	}
	return `pg_get_serial_sequence('{` + t.name + `}', '` + t.key + `')::regclass`
}

// raiseNumbers keeps numbers that were given on the other side from being
// given here. It never sets them back: no number is given twice.
func (s *Store) raiseNumbers(ctx context.Context, on runner, t movedTable, given int64) error {
	if s.dialect == postgresql {
		return each(ctx, on, func(*row) error { return nil },
			`SELECT setval(`+sequence(t)+`, $1::bigint) WHERE $1::bigint > coalesce(pg_sequence_last_value(`+sequence(t)+`), 0)`, given)
	}
	n, err := on.exec(ctx, `UPDATE sqlite_sequence SET seq = max(seq, $1) WHERE name = '{`+t.name+`}'`, given)
	if err != nil || n > 0 || t.name == "subjects" { // which has its numbers from its rows there
		return err
	}
	_, err = on.exec(ctx, `INSERT INTO sqlite_sequence (name, seq) VALUES ('{`+t.name+`}', $1)`, given)
	return err
}

// switchSource is the one moment: from its commit on nobody mints from the
// source, and the fence stays for ever.
func (m *Move) switchSource(ctx context.Context) error {
	return m.from.unhurried(ctx, func() error {
		return m.onSource(ctx, func(on runner) error {
			now, err := m.from.moveClock(ctx, on)
			if err != nil {
				return err
			}
			if _, err := on.exec(ctx, `UPDATE {moves} SET moved_at = $1 WHERE id = 1`, now.UnixMilli()); err != nil {
				return err
			}
			return m.from.deleteMeta(ctx, on)
		})
	})
}

// lift takes our fence down unless the source was switched.
func (m *Move) lift(ctx context.Context) (switched bool, err error) {
	for {
		err = m.onSource(ctx, func(on runner) error { return m.from.liftFence(ctx, on) })
		var state MoveState
		if err == nil || errors.Is(err, errFenceGone) {
			if state, err = m.from.MoveState(ctx); err == nil {
				return state.run == m.run && !state.MovedAt.IsZero(), nil
			}
		}
		if !m.wait(ctx) {
			return false, err
		}
	}
}

// wait pauses before another try; false: it is over.
func (m *Move) wait(ctx context.Context) bool {
	pause := time.NewTimer(100 * time.Millisecond)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-pause.C:
		return true
	}
}

// enable makes the target usable. It goes on when the caller has given up:
// until it is done, nobody serves.
func (m *Move) enable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
	defer cancel()
	for {
		err := m.onTarget(ctx, func(on runner) error {
			state, err := readMove(ctx, on)
			if err != nil {
				return err
			}
			if err := insertMeta(ctx, on, state.meta); err != nil {
				return err
			}
			_, err = on.exec(ctx, `DELETE FROM {moves} WHERE id = 1`)
			return err
		})
		if err == nil {
			return nil
		}
		// A lost answer: it may be done.
		if state, stateErr := m.to.MoveState(ctx); stateErr == nil && state.Role == "" {
			return nil
		}
		if !m.wait(ctx) {
			return err
		}
	}
}

// insertMeta writes the row of table meta that was left as JSON.
func insertMeta(ctx context.Context, on runner, text string) error {
	values := map[string]any{}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber() // all digits
	if err := d.Decode(&values); err != nil {
		return fmt.Errorf("table moves: %w", err)
	}
	var names, places []string
	var args []any
	for name, value := range values {
		if n, ok := value.(json.Number); ok {
			whole, err := n.Int64()
			if err != nil {
				return fmt.Errorf("table moves: %w", err)
			}
			value = whole
		}
		names, args = append(names, name), append(args, value)
		places = append(places, "$"+strconv.Itoa(len(args)))
	}
	_, err := on.exec(ctx, `INSERT INTO {meta} (`+strings.Join(names, ", ")+`) VALUES (`+strings.Join(places, ", ")+`)`, args...)
	return err
}
