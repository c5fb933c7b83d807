package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
)

// MoveRole is which side of a move a database is.
type MoveRole string

// The sides of a move. A database without a role takes part in none.
const (
	MoveSource MoveRole = "source" // writes are refused; once MovedAt is set, everything is
	MoveTarget MoveRole = "target" // filled, not to be used yet
)

// MoveState is what a database says about a move of everything in it.
type MoveState struct {
	Role           MoveRole // empty: none
	Source, Target string   // the databases, without secrets
	// AliveAt is when the command that moves last said that it runs.
	AliveAt time.Time
	// FencedAt is since when the source refuses writes; zero while it does not.
	FencedAt time.Time
	// MovedAt is since when everything is on the target alone; zero before.
	MovedAt time.Time

	run  string
	meta string
}

// MoveState reads what the database says about a move. It can be asked
// whether or not the database can be used.
func (s *Store) MoveState(ctx context.Context) (state MoveState, err error) {
	err = s.engine.view(ctx, func(on runner) (err error) {
		state, err = readMove(ctx, on)
		return err
	})
	if err != nil {
		return MoveState{}, failed("read the state of a move", err)
	}
	return state, nil
}

func readMove(ctx context.Context, on runner) (m MoveState, err error) {
	_, err = one(ctx, on, func(r *row) {
		m.run, m.Role, m.Source, m.Target = r.text(), MoveRole(r.text()), r.text(), r.text()
		m.AliveAt, m.FencedAt, m.MovedAt, m.meta = r.time(), r.time(), r.time(), r.text()
	}, `SELECT run, role, source, target, alive_at, fenced_at, moved_at, meta FROM {moves} WHERE id = 1`)
	return m, err
}

// MoveError says that a database cannot be used because of a move. It wraps
// [counterfoil.ErrStoreMoved].
type MoveError struct{ MoveState }

func (e *MoveError) Error() string {
	if e.Role == MoveTarget {
		return fmt.Sprintf("a move from %s to this database is not finished: run counterfoil move again, or use the old one", e.Source)
	}
	return fmt.Sprintf("everything was moved to %s at %s: use that one", e.Target, e.MovedAt.Format(time.RFC3339))
}

func (e *MoveError) Unwrap() error { return counterfoil.ErrStoreMoved }

// errNoMeta says that the row which every mint reads is gone: that is how a
// move ends the use of the old database, and holds up that of the new one.
var errNoMeta = errors.New("the row in table meta is missing")

// noMeta says why it is.
func (s *Store) noMeta(ctx context.Context, on runner) error {
	state, err := readMove(ctx, on)
	switch {
	case err != nil:
		return errors.Join(errNoMeta, err)
	case state.Role == "":
		return errNoMeta
	}
	return &MoveError{state}
}

const (
	fenceMessage = "counterfoil: a move refuses writes"
	// fenceState is a class that PostgreSQL leaves to applications.
	fenceState = "CF001"
	// fencePass is the setting with which a transaction passes PostgreSQL's.
	fencePass = "counterfoil.move"
)

// fenced says that a write met the fence of a move.
func fenced(err error) bool {
	return sqlState(err) == fenceState || sqliteCode(err) == sqliteConstraint && strings.Contains(err.Error(), fenceMessage)
}

// fenceTables are those whose writes are refused: all but the schema's own
// and that of moves.
func fenceTables() []string {
	names := []string{"meta"}
	for _, t := range movedTables {
		names = append(names, t.name)
	}
	return names
}

// raiseFence makes the database refuse writes from the commit on. On
// PostgreSQL it waits for transactions that have written, and everybody who
// comes later waits for it: the locks are taken at once and for a short time.
func (s *Store) raiseFence(ctx context.Context, on runner) error {
	if s.dialect == postgresql {
		var all []string
		for _, name := range fenceTables() {
			all = append(all, `{`+name+`}`)
		}
		for _, statement := range []string{
			fmt.Sprintf(`SET LOCAL lock_timeout = %d`, migrationLock.Milliseconds()),
			`LOCK TABLE ` + strings.Join(all, `, `) + ` IN SHARE ROW EXCLUSIVE MODE`,
			`CREATE OR REPLACE FUNCTION {fence}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF current_setting(''` + fencePass + `'', true) = ''switch'' THEN RETURN NULL; END IF; ` +
				`RAISE EXCEPTION ''` + fenceMessage + `'' USING ERRCODE = ''` + fenceState + `''; END'`,
		} {
			if _, err := on.exec(ctx, statement); err != nil {
				return err
			}
		}
	}
	for _, name := range fenceTables() {
		for _, statement := range s.fenceOn(name) {
			if _, err := on.exec(ctx, statement); err != nil {
				return err
			}
		}
	}
	return nil
}

// fenceOps are what triggers refuse.
var fenceOps = []string{"insert", "update", "delete"}

func (s *Store) fenceOn(table string) (statements []string) {
	if s.dialect == postgresql {
		return []string{`CREATE TRIGGER {fence} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {` + table +
			`} FOR EACH STATEMENT EXECUTE PROCEDURE {fence}()`}
	}
	for _, op := range fenceOps {
		statements = append(statements, `CREATE TRIGGER {fence_`+table+`_`+op+`} BEFORE `+op+` ON {`+table+
			`} BEGIN SELECT RAISE(ABORT, '`+fenceMessage+`'); END`)
	}
	return statements
}

// dropFence lets one table be written again.
func (s *Store) dropFence(ctx context.Context, on runner, table string) error {
	if s.dialect == postgresql {
		_, err := on.exec(ctx, `DROP TRIGGER IF EXISTS {fence} ON {`+table+`}`)
		return err
	}
	for _, op := range fenceOps {
		if _, err := on.exec(ctx, `DROP TRIGGER IF EXISTS {fence_`+table+`_`+op+`}`); err != nil {
			return err
		}
	}
	return nil
}

// deleteMeta passes the fence. PostgreSQL's stays: to take it from the table
// would wait for all who have read it, and have everybody wait behind.
func (s *Store) deleteMeta(ctx context.Context, on runner) error {
	if s.dialect == postgresql {
		if err := each(ctx, on, func(*row) error { return nil }, `SELECT set_config('`+fencePass+`', 'switch', true)`); err != nil {
			return err
		}
	} else if err := s.dropFence(ctx, on, "meta"); err != nil {
		return err
	}
	_, err := on.exec(ctx, `DELETE FROM {meta}`)
	return err
}

// liftFence undoes a fence before anything was switched.
func (s *Store) liftFence(ctx context.Context, on runner) error {
	if s.dialect == postgresql {
		if _, err := on.exec(ctx, fmt.Sprintf(`SET LOCAL lock_timeout = %d`, migrationLock.Milliseconds())); err != nil {
			return err
		}
	}
	for _, name := range fenceTables() {
		if err := s.dropFence(ctx, on, name); err != nil {
			return err
		}
	}
	if s.dialect == postgresql {
		if _, err := on.exec(ctx, `DROP FUNCTION IF EXISTS {fence}()`); err != nil {
			return err
		}
	}
	_, err := on.exec(ctx, `DELETE FROM {moves} WHERE role = 'source' AND moved_at IS NULL`)
	return err
}

// LiftFence lets a database be written again whose move was given up, or has
// not said for the given time that it runs. It reports whether there was such
// a fence. A move that goes on all the same notices, and does not switch.
func (s *Store) LiftFence(ctx context.Context, silent time.Duration) (lifted bool, err error) {
	err = s.unhurried(ctx, func() error {
		return s.engine.tx(ctx, func(on runner) error {
			lifted = false
			state, err := readMove(ctx, on)
			if err != nil || state.Role != MoveSource || !state.MovedAt.IsZero() {
				return err
			}
			now, err := s.moveClock(ctx, on)
			if err != nil || now.Sub(state.AliveAt) < silent {
				return err
			}
			lifted = true
			return s.liftFence(ctx, on)
		})
	})
	if err != nil {
		return false, failed("lift the fence of a move", err)
	}
	return lifted, nil
}

// moveClock is the store's clock without a look at table meta.
func (s *Store) moveClock(ctx context.Context, on runner) (now time.Time, err error) {
	_, err = one(ctx, on, func(r *row) { now = s.clockOr(r) }, `SELECT {clock}`)
	return now, err
}
