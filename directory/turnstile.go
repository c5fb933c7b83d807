package directory

import (
	"context"
	"fmt"
	"sync"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// turnstile lets a few attempts with one key through at a time on this node;
// the others wait. An honest burst (a test suite, several tabs) is served one
// after the other instead of being taken for guesses, and a flood at one
// account reaches the store no faster than the store answers.
type turnstile struct {
	through, waiting int // at most, for one key

	mu    sync.Mutex
	gates map[string]*gate
}

type gate struct {
	slots chan struct{}
	users int // through or waiting
}

func newTurnstile(through, waiting int) *turnstile {
	return &turnstile{through: through, waiting: waiting, gates: make(map[string]*gate)}
}

// enter waits its turn: a [*counterfoil.RateLimitedError] when too many wait
// already, the context's error when it ends first.
func (t *turnstile) enter(ctx context.Context, key string) (leave func(), err error) {
	t.mu.Lock()
	g := t.gates[key]
	if g == nil {
		g = &gate{slots: make(chan struct{}, t.through)}
		t.gates[key] = g
	}
	if g.users >= t.through+t.waiting {
		t.mu.Unlock()
		return nil, &counterfoil.RateLimitedError{RetryAfter: firstWait}
	}
	g.users++
	t.mu.Unlock()

	select {
	case g.slots <- struct{}{}:
		return func() { <-g.slots; t.gone(key, g) }, nil
	case <-ctx.Done():
		t.gone(key, g)
		return nil, fmt.Errorf("%w: wait for other attempts: %w", verify.ErrUnavailable, ctx.Err())
	}
}

func (t *turnstile) gone(key string, g *gate) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g.users--; g.users == 0 {
		delete(t.gates, key)
	}
}
