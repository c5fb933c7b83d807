package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
)

// engine runs the parts of calls against one database, in its own
// transactions or in the caller's. fn may run more than once: it assigns what
// it found, and does nothing else that cannot be undone.
type engine interface {
	// view runs one reading statement.
	view(ctx context.Context, fn func(runner) error) error
	// once runs fn, which changes the database by one statement at most
	// where the dialect is PostgreSQL.
	once(ctx context.Context, fn func(runner) error) error
	// again is once for a change that may as well happen twice.
	again(ctx context.Context, fn func(runner) error) error
	// tx runs fn in a transaction; an error undoes all it did.
	tx(ctx context.Context, fn func(runner) error) error
	// sweep is tx for a chunk of clean-up, which gives way to calls.
	sweep(ctx context.Context, fn func(runner) error) error
}

// compiler keeps the queries as the dialect wants them.
type compiler struct {
	dialect dialect
	prefix  string
	texts   sync.Map // query as in this package -> compiled
}

func (c *compiler) text(query string) string {
	if text, ok := c.texts.Load(query); ok {
		return text.(string)
	}
	text := c.dialect.compile(c.prefix, query)
	c.texts.Store(query, text)
	return text
}

// execQuerier is what *sql.DB, *sql.Conn and *sql.Tx have in common.
type execQuerier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// direct hands each query to the driver as text. pgx caches the statements by itself.
type direct struct {
	*compiler
	on execQuerier
}

func (d direct) exec(ctx context.Context, query string, args ...any) (int64, error) {
	result, err := d.on.ExecContext(ctx, d.text(query), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (d direct) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return d.on.QueryContext(ctx, d.text(query), args...)
}

// prompt is direct for a server across a network: a statement that is not
// answered in time fails.
type prompt struct{ direct }

const statementTimeout = 10 * time.Second

// errSilent says that the database took a statement and did not answer.
// Whether it was carried out is not known.
var errSilent = fmt.Errorf("%w: no answer within %s", counterfoil.ErrStoreUnavailable, statementTimeout)

// patience is the key under which a context says that statements may take long.
type patience struct{}

func (p prompt) exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	ctx, cancel := p.limit(ctx)
	defer cancel()
	defer func() { err = cause(ctx, err) }()
	return p.direct.exec(ctx, query, args...)
}

// limit bounds one statement with all its rows.
func (prompt) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Value(patience{}) != nil {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, statementTimeout, errSilent)
}

// cause is errSilent in place of an error that it led to.
func cause(ctx context.Context, err error) error {
	if err != nil && errors.Is(err, context.DeadlineExceeded) && errors.Is(context.Cause(ctx), errSilent) {
		return errSilent
	}
	return err
}

// joined works inside a transaction of the application: it neither commits
// nor rolls back. A savepoint keeps a failed call from leaving half of its
// work, and in PostgreSQL from spoiling the transaction.
type joined struct{ direct }

func join(c *compiler, tx *sql.Tx) joined { return joined{direct{c, tx}} }

func (j joined) view(_ context.Context, fn func(runner) error) error { return fn(j.direct) }

func (j joined) once(ctx context.Context, fn func(runner) error) error { return j.tx(ctx, fn) }

func (j joined) again(ctx context.Context, fn func(runner) error) error { return j.tx(ctx, fn) }

func (j joined) tx(ctx context.Context, fn func(runner) error) error {
	return inSavepoint(ctx, j.direct, fn)
}

func (j joined) sweep(ctx context.Context, fn func(runner) error) error { return j.tx(ctx, fn) }

func inSavepoint(ctx context.Context, on runner, fn func(runner) error) error {
	if _, err := on.exec(ctx, `SAVEPOINT counterfoil_call`); err != nil {
		return err
	}
	err := fn(on)
	if err == nil {
		if _, err := on.exec(ctx, `RELEASE SAVEPOINT counterfoil_call`); err != nil {
			return &undoError{err, errors.New("not tried")}
		}
		return nil
	}
	// Undone even if the caller has given up: the transaction goes on.
	ctx = context.WithoutCancel(ctx)
	if _, undo := on.exec(ctx, `ROLLBACK TO SAVEPOINT counterfoil_call`); undo != nil {
		return &undoError{err, undo}
	}
	if _, undo := on.exec(ctx, `RELEASE SAVEPOINT counterfoil_call`); undo != nil {
		return &undoError{err, undo}
	}
	return err
}

// undoError says that a call failed and could not be undone by itself: the
// whole transaction is lost.
type undoError struct{ err, undo error }

func (e *undoError) Error() string {
	return e.err.Error() + "; undoing it failed as well: " + e.undo.Error()
}

func (e *undoError) Unwrap() []error { return []error{e.err, e.undo} }
