package sqlstore

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"
)

// pool is PostgreSQL with transactions of our own.
type pool struct {
	direct
	db       *sql.DB
	moving   *bool
	reads    *gather[lookup]
	inserts  *gather[insertion]
	ends     *gather[ending]
	journal  *gather[journalEnding]
	renewing atomic.Bool
}

const (
	// transactionTimeout bounds a transaction, its commit included, so that a
	// silent server holds nobody up for good.
	transactionTimeout = 3 * statementTimeout
	// renewTimeout bounds the look at idle connections after a failure.
	renewTimeout = 2 * time.Second
)

func newPool(s *Store) *pool {
	p := &pool{direct: direct{&s.compiler, s.db}, db: s.db, moving: &s.moving}
	own, lanes := &sessions{s, p}, max(4, runtime.GOMAXPROCS(0))
	p.reads = &gather[lookup]{send: own.readGathered, lanes: lanes}
	p.inserts = &gather[insertion]{send: own.insertGathered, lanes: lanes}
	p.ends = &gather[ending]{send: own.endGathered, lanes: lanes}
	p.journal = &gather[journalEnding]{send: (&Journal{s, p}).endGathered, lanes: lanes}
	return p
}

// view is repeated once when the connection was lost: reading changes nothing.
func (p *pool) view(ctx context.Context, fn func(runner) error) error { return p.again(ctx, fn) }

func (p *pool) once(ctx context.Context, fn func(runner) error) error {
	return p.repeat(ctx, refused, func() error { return fn(p.runner(p.db)) })
}

func (p *pool) again(ctx context.Context, fn func(runner) error) error {
	return p.repeat(ctx, lost, func() error { return fn(p.runner(p.db)) })
}

// tx is repeated once when the connection was lost before the commit was
// asked for: then it was undone. After that nobody knows.
func (p *pool) tx(ctx context.Context, fn func(runner) error) error {
	committing := false
	undone := func(err error) bool { return refused(err) || !committing && lost(err) }
	return p.repeat(ctx, undone, func() (err error) {
		limited := ctx
		if !p.patient(ctx) {
			var cancel context.CancelFunc
			limited, cancel = context.WithTimeoutCause(ctx, transactionTimeout, errSilent)
			defer cancel()
			defer func() { err = cause(limited, err) }()
		}
		committing = false
		tx, err := p.db.BeginTx(limited, nil)
		if err != nil {
			return err
		}
		if err := fn(p.runner(tx)); err != nil {
			_ = tx.Rollback() // err says more
			return err
		}
		committing = true
		return tx.Commit()
	})
}

func (p *pool) sweep(ctx context.Context, fn func(runner) error) error { return p.tx(ctx, fn) }

func (p *pool) runner(on execQuerier) runner {
	if *p.moving {
		return direct{p.compiler, on}
	}
	return prompt{direct{p.compiler, on}}
}

func (p *pool) patient(ctx context.Context) bool {
	return *p.moving || ctx.Value(patience{}) != nil
}

// repeat runs fn again while PostgreSQL says that it was undone only because
// of what ran beside it, and once where undone says of an error of the
// connection that nothing can have happened, or that it does not matter.
func (p *pool) repeat(ctx context.Context, undone func(error) bool, fn func() error) error {
	renewed := false
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := fn()
		switch {
		case err == nil:
			return nil
		case repeatable(err):
		case lost(err) && ctx.Err() == nil && !renewed:
			// Even if nothing is repeated, the next call should not have to find out.
			renewed = true
			p.renew(ctx)
			if undone(err) {
				continue
			}
			return err
		default:
			return err
		}
		wait := time.NewTimer(rand.N(pause))
		select {
		case <-ctx.Done():
			wait.Stop()
			return err
		case <-wait.C:
		}
	}
}

// renew closes idle connections that lead nowhere, or to a server that takes
// no writes (any more): a primary that was demoted keeps them open. Whoever
// comes while one looks goes on.
func (p *pool) renew(ctx context.Context) {
	if !p.renewing.CompareAndSwap(false, true) {
		return
	}
	defer p.renewing.Store(false)
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	// All at once, or the pool would give the same one again.
	var held []*sql.Conn
	for range p.db.Stats().Idle {
		conn, err := p.db.Conn(ctx)
		if err != nil {
			break
		}
		held = append(held, conn)
	}
	for _, conn := range held {
		readOnly := true
		err := conn.QueryRowContext(ctx, `SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean`).Scan(&readOnly)
		if err != nil || readOnly {
			_ = discard(conn) // it is gone either way
			continue
		}
		_ = conn.Close() // back to the pool
	}
}
