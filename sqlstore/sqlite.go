package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"time"
)

// SQLiteDSN returns the data source name under which modernc.org/sqlite opens
// the file at path as this package wants it: synchronous=FULL and a wait of
// five seconds for locks, on each connection. WAL mode is a property of the
// file, which [Store.Open] sets.
//
// SQLite makes a new file readable for everybody that the umask allows; who
// wants less creates it beforehand.
func SQLiteDSN(path string) string {
	path = filepath.ToSlash(path)
	if filepath.VolumeName(path) != "" {
		path = "/" + path // file:/C:/…
	}
	// As a URI, so that ? and # in path are no parameters.
	u := url.URL{Scheme: "file", OmitHost: true, Path: path}
	return u.String() + "?_pragma=busy_timeout(5000)&_pragma=synchronous(FULL)"
}

// file is SQLite with transactions of our own: reads go to the pool, changes
// to the one writer.
type file struct {
	*compiler
	db     *sql.DB
	writer *writer

	mu       sync.RWMutex
	prepared map[string]*sql.Stmt
}

func newFile(c *compiler, db *sql.DB, relaxed bool) *file {
	return &file{compiler: c, db: db, writer: newWriter(c, db, relaxed), prepared: map[string]*sql.Stmt{}}
}

func (f *file) view(ctx context.Context, fn func(runner) error) error {
	return untilFree(ctx, func() error { return fn(f) })
}

func (f *file) once(ctx context.Context, fn func(runner) error) error {
	return f.writer.do(ctx, foreground, fn)
}

func (f *file) again(ctx context.Context, fn func(runner) error) error { return f.once(ctx, fn) }

func (f *file) tx(ctx context.Context, fn func(runner) error) error {
	return f.writer.do(ctx, foreground, fn)
}

func (f *file) sweep(ctx context.Context, fn func(runner) error) error {
	return f.writer.do(ctx, background, fn)
}

// untilFree runs fn again while another process holds a lock.
func untilFree(ctx context.Context, fn func() error) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := fn()
		if err == nil || !sqliteIsBusy(err) {
			return err
		}
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-wait.C:
		}
	}
}

func (f *file) exec(context.Context, string, ...any) (int64, error) {
	return 0, errors.New("only the writer changes the database")
}

func (f *file) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	stmt, err := f.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args...)
}

// prepare keeps statements: SQLite's compiler takes longer than most of them run.
func (f *file) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	f.mu.RLock()
	stmt := f.prepared[query]
	f.mu.RUnlock()
	if stmt != nil {
		return stmt, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if stmt := f.prepared[query]; stmt != nil {
		return stmt, nil
	}
	if f.prepared == nil {
		return nil, errClosed
	}
	stmt, err := f.db.PrepareContext(ctx, f.text(query))
	if err != nil {
		return nil, err
	}
	f.prepared[query] = stmt
	return stmt, nil
}

func (f *file) close() error {
	err := f.writer.close()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, stmt := range f.prepared {
		_ = stmt.Close() // only frees memory
	}
	f.prepared = nil
	return err
}
