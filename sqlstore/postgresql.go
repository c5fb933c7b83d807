package sqlstore

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"runtime"
	"time"
)

// pool is PostgreSQL with transactions of our own.
type pool struct {
	direct
	db     *sql.DB
	gather gather
}

func newPool(s *Store) *pool {
	p := &pool{direct: direct{&s.compiler, s.db}, db: s.db}
	p.gather.read, p.gather.lanes = (&sessions{s, p}).readGathered, max(2, runtime.GOMAXPROCS(0)/2)
	return p
}

func (p *pool) view(ctx context.Context, fn func(runner) error) error {
	return p.repeat(ctx, func() error { return fn(p.direct) })
}

func (p *pool) once(ctx context.Context, fn func(runner) error) error { return p.view(ctx, fn) }

func (p *pool) tx(ctx context.Context, fn func(runner) error) error {
	return p.repeat(ctx, func() error {
		tx, err := p.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if err := fn(direct{p.compiler, tx}); err != nil {
			_ = tx.Rollback() // err says more
			return err
		}
		return tx.Commit()
	})
}

func (p *pool) sweep(ctx context.Context, fn func(runner) error) error { return p.tx(ctx, fn) }

// repeat runs fn again while PostgreSQL says that it was undone only because
// of what ran beside it. After a lost connection nobody knows whether it
// happened, so that is for the caller to decide.
func (p *pool) repeat(ctx context.Context, fn func() error) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := fn()
		if err == nil || !repeatable(err) {
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
