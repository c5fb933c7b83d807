package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	groupSize = 64 // operations in one commit at most

	// sweepPatience is how long sweeps give way to a queue that is never
	// empty before one chunk is let through.
	sweepPatience = 250 * time.Millisecond

	// sweepQuiet is how long nobody else may have come before a sweep runs.
	sweepQuiet = 2 * time.Millisecond

	// closePatience bounds how long close waits for a lock of another process.
	closePatience = 5 * time.Second
)

type priority bool

const (
	foreground priority = false
	background priority = true // only when nobody else waits
)

// writer is the one goroutine that changes a SQLite database in its own
// transactions. Operations that wait while a transaction is being written go
// together into the next: one sync to disk answers all of them.
type writer struct {
	compiler *compiler
	db       *sql.DB
	relaxed  bool // leave synchronous as the connection has it

	start sync.Once
	// committing is held while a commit is written, and by the tail of the log
	// while it reads: a read that finds SQLite's log changed since it began has
	// to begin again, and after a few times in a row SQLite lets it sleep for
	// longer and longer. With a thousand commits a second that took seconds.
	committing sync.Mutex

	queue   chan *operation
	idle    chan *operation
	stopped chan struct{}

	mu     sync.RWMutex // held to read while enqueuing
	closed bool
	end    atomic.Int64  // when closing gives up, Unix nanoseconds; 0 while open
	ending chan struct{} // closed as closing begins: sweeps that wait for their turn give it up

	// The goroutine's own.
	conn     *sql.Conn
	prepared map[string]*sql.Stmt
	waiting  *operation // a sweep that gives way
	swept    time.Time  // when the last one began
}

// operation is one call's change. Its state decides between the writer that
// begins it and the caller that gives up: never both.
type operation struct {
	fn       func(runner) error
	state    atomic.Int32
	err      error
	panicked any
	done     chan struct{}
}

const (
	opWaiting int32 = iota
	opBegun
	opAbandoned
)

func newWriter(c *compiler, db *sql.DB, relaxed bool) *writer {
	return &writer{compiler: c, db: db, relaxed: relaxed, queue: make(chan *operation, 4*groupSize),
		idle: make(chan *operation), ending: make(chan struct{}), stopped: make(chan struct{}), prepared: map[string]*sql.Stmt{}}
}

// do runs fn in a savepoint of a transaction and returns once that is
// committed. When ctx ends before fn began, fn will not run; after that the
// answer is awaited, so that it is true.
func (w *writer) do(ctx context.Context, p priority, fn func(runner) error) error {
	w.start.Do(func() { go w.run() })
	op := &operation{fn: fn, done: make(chan struct{})}
	if err := w.enqueue(ctx, p, op); err != nil {
		return err
	}
	select {
	case <-op.done:
	case <-ctx.Done():
		if op.state.CompareAndSwap(opWaiting, opAbandoned) {
			return context.Cause(ctx)
		}
		<-op.done
	}
	if op.panicked != nil {
		panic(op.panicked) // in the goroutine that brought fn
	}
	return op.err
}

func (w *writer) enqueue(ctx context.Context, p priority, op *operation) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return errClosed
	}
	to, ending := w.queue, chan struct{}(nil)
	if p == background {
		to, ending = w.idle, w.ending
	}
	select {
	case to <- op:
		return nil
	case <-ending:
		return errClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close lets the waiting operations finish and gives the connection back.
func (w *writer) close() error {
	w.start.Do(func() { go w.run() })
	if w.end.CompareAndSwap(0, time.Now().Add(closePatience).UnixNano()) {
		close(w.ending)
	}
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.queue)
		close(w.idle)
	}
	w.mu.Unlock()
	<-w.stopped
	return nil
}

func (w *writer) run() {
	defer close(w.stopped)
	defer w.release()
	for op := w.next(); op != nil; op = w.next() {
		w.group(op)
	}
}

// next waits for an operation; nil when the writer was closed and none is
// left. A sweep runs when nobody else came for a moment: right after a group
// was answered the queue is always empty, also under full load.
func (w *writer) next() *operation {
	for {
		if w.waiting == nil {
			w.waiting = poll(w.idle)
		}
		if w.waiting != nil && time.Since(w.swept) > sweepPatience {
			return w.sweep()
		}
		if op := poll(w.queue); op != nil {
			return op
		}
		idle := w.idle
		var quiet <-chan time.Time
		if w.waiting != nil {
			idle, quiet = nil, time.After(sweepQuiet)
		}
		select {
		case op, ok := <-w.queue:
			if !ok {
				return w.sweep() // closed: what is left, then nil
			}
			return op
		case op, ok := <-idle:
			if !ok {
				return <-w.queue // closed: what is left, then nil
			}
			w.waiting = op
		case <-quiet:
			return w.sweep()
		}
	}
}

func (w *writer) sweep() *operation {
	op := w.waiting
	w.waiting, w.swept = nil, time.Now()
	return op
}

func poll(from chan *operation) *operation {
	select {
	case op := <-from:
		return op
	default:
		return nil
	}
}

// group runs op, and others that wait by then, in one transaction.
func (w *writer) group(op *operation) {
	ctx := context.Background() // callers who give up must not undo the others' work
	if !w.begin(ctx, op) {
		return
	}
	on := connection{w}
	var ran []*operation
	for n := 0; op != nil; n++ {
		if op.state.CompareAndSwap(opWaiting, opBegun) {
			ran = append(ran, op)
			op.run(ctx, on)
			if lost, ok := errors.AsType[*undoError](op.err); ok {
				w.abort(ctx, ran, fmt.Errorf("the transaction was lost: %w", lost))
				return
			}
		}
		if op = nil; n < groupSize-1 {
			op = poll(w.queue)
		}
	}
	w.committing.Lock()
	_, err := on.exec(ctx, `COMMIT`)
	w.committing.Unlock()
	if err != nil {
		w.abort(ctx, ran, fmt.Errorf("commit: %w", err))
		return
	}
	for _, op := range ran {
		close(op.done)
	}
}

func (o *operation) run(ctx context.Context, on runner) {
	o.err = inSavepoint(ctx, on, func(on runner) (err error) {
		defer func() {
			if o.panicked = recover(); o.panicked != nil {
				err = errors.New("panicked")
			}
		}()
		return o.fn(on)
	})
}

// abort ends the transaction and tells all that were in it, also those that
// had gone well. The connection is not trusted any more.
func (w *writer) abort(ctx context.Context, ran []*operation, err error) {
	_, _ = connection{w}.exec(ctx, `ROLLBACK`) // SQLite may have done so already
	w.release()
	for _, op := range ran {
		op.err = err
		close(op.done)
	}
}

// begin starts a transaction for op, waiting for other processes as long as
// op's caller does. It answers op when it cannot.
func (w *writer) begin(ctx context.Context, op *operation) bool {
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := w.connect(ctx)
		if err == nil {
			_, err = connection{w}.exec(ctx, `BEGIN IMMEDIATE`)
		}
		if err == nil {
			return true
		}
		if !sqliteIsBusy(err) || w.gaveUp() {
			w.release()
			if op.state.CompareAndSwap(opWaiting, opBegun) {
				op.err = fmt.Errorf("begin: %w", err)
				close(op.done)
			}
			return false
		}
		if op.state.Load() == opAbandoned {
			return false
		}
		time.Sleep(pause) // a lock of another process: nothing tells when it goes
	}
}

func (w *writer) gaveUp() bool {
	end := w.end.Load()
	return end != 0 && time.Now().UnixNano() > end
}

// connect takes the connection that is kept until the end.
func (w *writer) connect(ctx context.Context) error {
	if w.conn != nil {
		return nil
	}
	conn, err := w.db.Conn(ctx)
	if err != nil {
		return err
	}
	// Short, so that an operation that nobody waits for any more is noticed.
	pragmas := `PRAGMA busy_timeout = 100`
	if !w.relaxed {
		pragmas += `; PRAGMA synchronous = FULL`
	}
	if _, err := conn.ExecContext(ctx, pragmas); err != nil {
		_ = conn.Close() // err says more
		return err
	}
	w.conn = conn
	return nil
}

// release closes the connection: it was set up for the writer, and the pool
// belongs to the application.
func (w *writer) release() {
	for _, stmt := range w.prepared {
		_ = stmt.Close() // only frees memory
	}
	clear(w.prepared)
	if w.conn != nil {
		_ = w.conn.Raw(func(any) error { return driver.ErrBadConn }) // makes the pool drop it
		_ = w.conn.Close()
		w.conn = nil
	}
}

// connection runs statements on the writer's connection.
type connection struct{ *writer }

func (c connection) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if stmt := c.prepared[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := c.conn.PrepareContext(ctx, c.compiler.text(query))
	if err == nil {
		c.prepared[query] = stmt
	}
	return stmt, err
}

func (c connection) exec(ctx context.Context, query string, args ...any) (int64, error) {
	stmt, err := c.prepare(ctx, query)
	if err != nil {
		return 0, err
	}
	result, err := stmt.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (c connection) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	stmt, err := c.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args...)
}
