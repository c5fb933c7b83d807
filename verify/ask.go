package verify

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// asker makes live checks. For one token at most one question is on its way;
// whoever comes meanwhile waits for the next one, which all of them share, so
// that each answer was asked for after its request had come. Many requests with
// one token cost two questions, not many.
type asker struct {
	timeout  time.Duration
	question func(ctx context.Context, token string, c *Claims) error

	mu     sync.Mutex
	queues map[string]*askQueue // by token; at most one for each that is being asked about
}

type askQueue struct{ next *ask }

type ask struct {
	ctx  context.Context
	done chan struct{}
	err  error // set before done is closed
}

func newAsker(timeout time.Duration, question func(context.Context, string, *Claims) error) *asker {
	return &asker{timeout: timeout, question: question, queues: make(map[string]*askQueue)}
}

// ask returns nil or an *Error. It never waits longer than the timeout.
func (a *asker) ask(ctx context.Context, token string, c *Claims) error {
	// The question outlives the request that asks it, for the others' sake.
	detached := context.WithoutCancel(ctx)
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()

	a.mu.Lock()
	q, busy := a.queues[token]
	var mine *ask
	switch {
	case !busy:
		mine = &ask{ctx: detached, done: make(chan struct{})}
		q = &askQueue{}
		a.queues[token] = q
		go a.run(token, c, q, mine)
	case q.next == nil:
		mine = &ask{ctx: detached, done: make(chan struct{})}
		q.next = mine
	default:
		mine = q.next
	}
	a.mu.Unlock()

	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
	}
	select {
	case <-mine.done: // at the very same moment
		return mine.err
	default:
		return because(ErrUnavailable, fmt.Errorf("live check: %w", ctx.Err()))
	}
}

// run asks until nobody is left who waits for an answer about the token.
func (a *asker) run(token string, c *Claims, q *askQueue, next *ask) {
	for next != nil {
		next.err = a.once(next.ctx, token, c)
		close(next.done)

		a.mu.Lock()
		next, q.next = q.next, nil
		if next == nil {
			delete(a.queues, token)
		}
		a.mu.Unlock()
	}
}

func (a *asker) once(ctx context.Context, token string, c *Claims) (err error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	defer func() {
		// This is no goroutine of net/http: a panic would end the process.
		if p := recover(); p != nil {
			err = because(ErrUnavailable, fmt.Errorf("live check panicked: %v", p))
		}
	}()
	err = a.question(ctx, token, c)
	var e *Error
	if err == nil || errors.As(err, &e) && e.Code != "" {
		return err
	}
	return because(ErrUnavailable, fmt.Errorf("live check: %w", err))
}
