package sqlstore

import (
	"context"
	"fmt"
	"time"
)

// MovePlan is what a move would do.
type MovePlan struct {
	Tables []MovedTable // without digests
	Rows   int64
	// Problems stand in the way; at most 20 are told.
	Problems []string
	// Read is how long it took to read everything once: a fence stands about
	// twice as long. Estimated is how long a move may take.
	Read, Estimated time.Duration
}

const (
	planProblems = 20
	// planRate is how many rows a second are copied at least on the machines
	// that were measured.
	planRate = 10000
)

// Plan reads the source and looks at the target. It changes nothing.
func (m *Move) Plan(ctx context.Context) (plan MovePlan, err error) {
	if err := m.openSource(ctx); err != nil {
		return plan, fmt.Errorf("sqlstore: move: %s: %w", m.Source, err)
	}
	problem := func(err error) {
		if len(plan.Problems) < planProblems {
			plan.Problems = append(plan.Problems, err.Error())
		}
	}
	state, err := m.from.MoveState(ctx)
	if err != nil {
		return plan, err
	}
	if state.Role == MoveTarget || !state.MovedAt.IsZero() {
		problem(fmt.Errorf("%s: %w", m.Source, &MoveError{state}))
		return plan, nil
	}
	if err := m.sameClock(ctx); err != nil {
		problem(err)
	}
	if err := m.planTarget(ctx); err != nil {
		problem(err)
	}
	began := time.Now()
	for _, t := range movedTables {
		rows, err := m.planTable(ctx, t, problem)
		if err != nil {
			return plan, fmt.Errorf("sqlstore: move: %w", err)
		}
		plan.Rows += rows
		plan.Tables = append(plan.Tables, MovedTable{Name: t.name, Rows: rows})
	}
	plan.Read = time.Since(began)
	plan.Estimated = time.Duration(plan.Rows)*time.Second/planRate + 3*plan.Read
	return plan, nil
}

// planTarget says why the target would not be taken.
func (m *Move) planTarget(ctx context.Context) error {
	var missing []migration
	err := m.to.engine.view(ctx, func(on runner) (err error) {
		missing, err = m.to.pending(ctx, on)
		return err
	})
	if err != nil || len(missing) > 0 {
		return err // its tables are to be made
	}
	state, err := m.to.MoveState(ctx)
	if err != nil || state.Role == MoveTarget {
		return err
	}
	if state.Role == MoveSource {
		return fmt.Errorf("%s: %w", m.Target, &MoveError{state})
	}
	return m.to.engine.view(ctx, func(on runner) error { return m.emptyTarget(ctx, on) })
}

// planTable reads a table whole, and tells rows that the target would refuse.
func (m *Move) planTable(ctx context.Context, t movedTable, problem func(error)) (rows int64, err error) {
	var found map[string]kind
	err = m.from.engine.view(ctx, func(on runner) (err error) {
		found, err = m.from.columnsOf(ctx, on, t.name)
		return err
	})
	if err != nil {
		return 0, err
	}
	pair, err := pairColumns(t, found, found)
	if err != nil {
		return 0, err
	}
	for after := any(nil); ; {
		list, err := m.from.readRecords(ctx, t.name, pair.from, after)
		if err != nil {
			return rows, err
		}
		for _, rec := range list {
			if err := rec.fits(m.to.dialect, pair.from); err != nil {
				problem(&rowError{t.name, t.key, rec[0], err})
			}
		}
		rows += int64(len(list))
		if len(list) < moveChunk {
			return rows, nil
		}
		after = list[len(list)-1][0]
	}
}

// AbortMove gives a move up: the source may be written again. It reports
// whether there was a fence; after the switch it is an error, since everything
// is in the other database by then.
func (s *Store) AbortMove(ctx context.Context) (lifted bool, err error) {
	s.moving, s.migrate = true, false
	if err := s.Open(ctx); err != nil {
		return false, err
	}
	state, err := s.MoveState(ctx)
	if err == nil && (state.Role == MoveTarget || !state.MovedAt.IsZero()) {
		err = failed("abort a move", &MoveError{state})
	}
	if err != nil {
		return false, err
	}
	return s.LiftFence(ctx, 0)
}
