package sqlstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Move copies everything from one database to another while the authority
// goes on serving from the first, and then switches: sessions, positions of
// the feed, keys as they are sealed, all the same. Nobody is signed out.
//
// Passes compare the two sides and copy what differs, until little does. Then
// the source refuses writes ([counterfoil.ErrStoreMoving]; reads and mints go
// on) for a last pass, which also proves both sides equal row by row. After
// the switch the source answers nothing any more ([counterfoil.ErrStoreMoved]),
// and the target, which could not be used before, can.
//
// A move that was interrupted, in whatever way, goes on when it is run again.
type Move struct {
	// Source and Target name the databases in messages and in the source
	// itself, without secrets.
	Source, Target string
	// FenceAtMost bounds how long writes are refused at a time; default 10 s.
	FenceAtMost time.Duration
	// Sessions, when set, takes the sessions instead of the target, empty as
	// it must be. They are brought there while the fence stands.
	Sessions SessionTarget
	// Progress, when set, hears how far the move is, many times a second.
	Progress func(MoveProgress)

	from, to *Store
	run      string
	tables   []*tableCopy
	meta     *tableCopy
	home     string // of the sessions
	began    time.Time
	report   MoveReport
}

// NewMove prepares a move between two stores that were not opened. Nothing
// is opened or changed before Run. It makes the tables of the target.
func NewMove(from, to *Store) *Move {
	from.moving, to.moving = true, true
	return &Move{from: from, to: to, run: rand.Text(), FenceAtMost: defaultFence}
}

const (
	defaultFence = 10 * time.Second
	// moveFew is how many differences may be left for the fenced pass.
	moveFew = 500
	// moveTries is how often the fence is raised before the move gives up.
	moveTries = 5
	// settleWithin bounds what is done after an interruption, and how long a
	// target that does not answer is asked to take over.
	settleWithin = 30 * time.Second
	// fenceWithin bounds the wait for transactions that have written.
	fenceWithin = time.Minute
	moveAlive   = time.Second
)

// MovePhase is a step of a move.
type MovePhase string

// The steps of a move, in order.
const (
	MoveCopying   MovePhase = "copying"
	MoveFenced    MovePhase = "fenced" // writes are refused
	MoveSwitching MovePhase = "switching"
	MoveDone      MovePhase = "done"
)

// MoveProgress is how far a move is.
type MoveProgress struct {
	Phase   MovePhase
	Pass    int
	Table   string
	Rows    int64 // of the table, compared in this pass
	Total   int64 // of the table, when the pass began
	Changed int64 // of all tables, copied or deleted in this pass
	Done    int64 // of all tables, compared in this pass
	All     int64 // of all tables, when the pass began
}

// MovedTable is a table that is the same on both sides.
type MovedTable struct {
	Name   string `json:"name"`
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256"` // over its rows in the order of their key
}

// MoveReport tells what a move did.
type MoveReport struct {
	Tables   []MovedTable
	Passes   int
	Changed  int64 // rows copied or deleted
	Fences   int   // how often writes were refused
	Fenced   time.Duration
	Took     time.Duration
	Finished bool // an earlier run had switched the source; this one made the target usable
}

var (
	errTakenOver = errors.New("another move to this database has begun meanwhile: only one can go on")
	errFenceGone = errors.New("the fence was lifted meanwhile: nothing was switched")
)

// Run moves. Errors before the switch leave the source as it was, with writes
// allowed; after any error Run can be called again, in another process too.
func (m *Move) Run(ctx context.Context) (MoveReport, error) {
	m.began, m.report = time.Now(), MoveReport{}
	finish, err := m.prepare(ctx)
	if err != nil {
		return m.report, fmt.Errorf("sqlstore: move: %w", err)
	}
	if !finish {
		if err := m.copy(ctx); err != nil {
			return m.report, fmt.Errorf("sqlstore: move: %w", err)
		}
	}
	m.tell(MoveProgress{Phase: MoveSwitching})
	if err := m.enable(ctx); err != nil {
		return m.report, fmt.Errorf("sqlstore: move: everything is in %s now, which could not be told so: run the move again: %w", m.Target, err)
	}
	m.report.Finished, m.report.Took = finish, time.Since(m.began)
	m.tell(MoveProgress{Phase: MoveDone})
	return m.report, nil
}

func (m *Move) tell(p MoveProgress) {
	if m.Progress != nil {
		p.Pass = m.report.Passes
		m.Progress(p)
	}
}

// prepare opens both sides. finish says that an earlier run got as far as
// the switch.
func (m *Move) prepare(ctx context.Context) (finish bool, err error) {
	if m.from.settings.prefix != m.to.settings.prefix {
		return false, errors.New("both sides want the same table prefix")
	}
	if err := m.openSource(ctx); err != nil {
		return false, fmt.Errorf("%s: %w", m.Source, err)
	}
	if err := m.to.Open(ctx); err != nil {
		return false, fmt.Errorf("%s: %w", m.Target, err)
	}
	source, err := m.from.MoveState(ctx)
	if err != nil {
		return false, err
	}
	target, err := m.to.MoveState(ctx)
	switch {
	case err != nil:
		return false, err
	case source.Role == MoveTarget:
		return false, fmt.Errorf("%s: %w", m.Source, &MoveError{source})
	case !source.MovedAt.IsZero():
		if target.Role == MoveTarget && target.run == source.run && target.meta != "" {
			m.run = source.run
			return true, nil
		}
		return false, fmt.Errorf("%s: %w", m.Source, &MoveError{source})
	}
	if err := m.sameClock(ctx); err != nil {
		return false, err
	}
	if source.Role == MoveSource { // of a run that was killed
		if _, err := m.from.LiftFence(ctx, 0); err != nil {
			return false, err
		}
	}
	if err := m.readColumns(ctx); err != nil {
		return false, err
	}
	if err := m.claim(ctx); err != nil {
		return false, err
	}
	return false, m.claimSessions(ctx)
}

// openSource checks without making or migrating anything: servers are running on it.
func (m *Move) openSource(ctx context.Context) error {
	m.from.migrate = false
	return m.from.Open(ctx)
}

// sameClock compares the clocks: nodes refuse to mint when theirs differ.
func (m *Move) sameClock(ctx context.Context) error {
	const most = 5 * time.Second
	for _, side := range []struct {
		store *Store
		name  string
	}{{m.from, m.Source}, {m.to, m.Target}} {
		var at time.Time
		before := time.Now()
		err := side.store.engine.view(ctx, func(on runner) (err error) {
			at, err = side.store.moveClock(ctx, on)
			return err
		})
		if err != nil {
			return err
		}
		if side.store.clock == nil && (at.Before(before.Add(-most)) || at.After(time.Now().Add(most))) {
			return fmt.Errorf("%s says it is %s, and here it is %s: set the clocks, servers would not mint", side.name, at.Format(time.RFC3339), before.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

func (m *Move) readColumns(ctx context.Context) error {
	both := func(table string) (from, to map[string]kind, err error) {
		err = m.from.engine.view(ctx, func(on runner) (err error) {
			from, err = m.from.columnsOf(ctx, on, table)
			return err
		})
		if err != nil {
			return nil, nil, err
		}
		err = m.to.engine.view(ctx, func(on runner) (err error) {
			to, err = m.to.columnsOf(ctx, on, table)
			return err
		})
		return from, to, err
	}
	m.tables = nil
	for _, t := range movedTables {
		if m.skipped(t.name) {
			continue
		}
		from, to, err := both(t.name)
		if err != nil {
			return err
		}
		c, err := pairColumns(t, from, to)
		if err != nil {
			return err
		}
		m.tables = append(m.tables, c)
	}
	from, to, err := both("meta")
	if err != nil {
		return err
	}
	m.meta, err = pairColumns(movedTable{name: "meta", key: "id"}, from, to)
	return err
}

// claim makes the target ours: empty, or what an earlier run has left.
func (m *Move) claim(ctx context.Context) error {
	return m.to.engine.tx(ctx, func(on runner) error {
		state, err := readMove(ctx, on)
		if err != nil {
			return err
		}
		now, err := m.to.moveClock(ctx, on)
		if err != nil {
			return err
		}
		switch state.Role {
		case MoveSource:
			return fmt.Errorf("%s: %w", m.Target, &MoveError{state})
		case MoveTarget:
			_, err := on.exec(ctx, `UPDATE {moves} SET run = $1, source = $2, target = $3, alive_at = $4, meta = NULL WHERE id = 1`,
				m.run, m.Source, m.Target, now.UnixMilli())
			return err
		}
		if m.to.dialect == postgresql { // a server that makes the first keys changes this row
			if _, err := on.exec(ctx, `LOCK TABLE {meta} IN SHARE ROW EXCLUSIVE MODE`); err != nil {
				return err
			}
		}
		if err := m.emptyTarget(ctx, on); err != nil {
			return err
		}
		if _, err := on.exec(ctx, `DELETE FROM {meta}`); err != nil {
			return err
		}
		_, err = on.exec(ctx, `INSERT INTO {moves} (id, run, role, source, target, alive_at) VALUES (1, $1, 'target', $2, $3, $4)`,
			m.run, m.Source, m.Target, now.UnixMilli())
		return err
	})
}

// emptyTarget refuses a database that somebody uses.
func (m *Move) emptyTarget(ctx context.Context, on runner) error {
	var held []string
	for _, t := range movedTables {
		var n int64
		if _, err := one(ctx, on, func(r *row) { n = r.int() }, `SELECT count(*) FROM (SELECT 1 FROM {`+t.name+`} LIMIT 1000) x`); err != nil {
			return err
		}
		if n > 0 {
			held = append(held, t.name)
		}
	}
	if len(held) > 0 {
		return fmt.Errorf("%s is in use (there are rows in %s): a move wants an empty database", m.Target, strings.Join(held, ", "))
	}
	return nil
}

// onTarget runs fn in a transaction of the target, while it is ours.
func (m *Move) onTarget(ctx context.Context, fn func(runner) error) error {
	return m.to.engine.tx(ctx, func(on runner) error {
		now, err := m.to.moveClock(ctx, on)
		if err != nil {
			return err
		}
		n, err := on.exec(ctx, `UPDATE {moves} SET alive_at = $2 WHERE id = 1 AND role = 'target' AND run = $1`, m.run, now.UnixMilli())
		if err != nil {
			return err
		}
		if n != 1 {
			return errTakenOver
		}
		return fn(on)
	})
}
