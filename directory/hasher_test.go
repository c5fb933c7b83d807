package directory

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// SEC-83: no more hashes at once than allowed, a bounded queue, and who has
// gone does not wait on.
func TestSEC83Queue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHasher(Argon2id{64, 1, 1}, 1, 2)
		take := func(ctx context.Context) (func(), error) {
			leave, err := h.enter()
			if err != nil {
				return nil, err
			}
			release, err := h.slot(ctx)
			if err != nil {
				leave()
				return nil, err
			}
			return func() { release(); leave() }, nil
		}
		first, err := take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		gone := make(chan error, 1)
		go func() {
			_, err := take(impatient)
			gone <- err
		}()
		patient := make(chan error, 1)
		go func() {
			done, err := take(t.Context())
			if err == nil {
				done()
			}
			patient <- err
		}()
		synctest.Wait()
		if _, err := take(t.Context()); !errors.Is(err, verify.ErrUnavailable) {
			t.Errorf("a full queue took one more: %v", err)
		}
		if err := <-gone; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		select {
		case err := <-patient:
			t.Errorf("two hashed at once: %v", err)
		default:
		}
		first()
		if err := <-patient; err != nil {
			t.Error(err)
		}
		if len(h.places) != 0 || len(h.slots) != 0 {
			t.Error("places or slots were not given back")
		}
		cancelled, stop := context.WithCancel(t.Context())
		stop()
		if _, err := take(cancelled); !errors.Is(err, context.Canceled) {
			t.Errorf("hashed for somebody who has gone: %v", err)
		}
	})
}

func TestTurnstile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurnstile(1, 1)
		leave, err := turns.enter(t.Context(), "ada")
		if err != nil {
			t.Fatal(err)
		}
		second := make(chan func(), 1)
		go func() {
			leave, err := turns.enter(t.Context(), "ada")
			if err != nil {
				t.Error(err)
			}
			second <- leave
		}()
		synctest.Wait()
		var limited *counterfoil.RateLimitedError
		if _, err := turns.enter(t.Context(), "ada"); !errors.As(err, &limited) || limited.RetryAfter <= 0 {
			t.Errorf("got %v", err)
		}
		other, err := turns.enter(t.Context(), "grace")
		if err != nil {
			t.Errorf("another account has to wait: %v", err)
		}
		other()
		leave()
		(<-second)()
		if len(turns.gates) != 0 {
			t.Error("gates stay behind")
		}
	})
}
