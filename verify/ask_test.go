package verify

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestLiveInProcess(t *testing.T) {
	var answer error
	asked := 0
	v := newLocal(t, func(_ *Config, l *Local) {
		l.Live = func(_ context.Context, c *Claims) error {
			asked++
			if c.SessionID == "" {
				t.Error("no session")
			}
			return answer
		}
	})
	token := v.key.mint(t, goodClaims(start).with(claims{"roles": []string{"staff"}}))
	for _, tc := range []struct {
		answer, want error
	}{
		{nil, nil},
		{ErrTokenStale, ErrTokenStale},
		{ErrSessionRevoked, ErrSessionRevoked},
		{errors.New("no database"), ErrUnavailable},
		{context.DeadlineExceeded, ErrUnavailable},
	} {
		answer = tc.answer
		if _, err := v.Check(t.Context(), token, Live()); !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("%v: %v", tc.answer, err)
		}
	}
	asked = 0
	// A token that is refused here is not asked about.
	if _, err := v.Check(t.Context(), v.key.mint(t, goodClaims(start.Add(-time.Hour))), Live()); !errors.Is(err, ErrTokenExpired) || asked != 0 {
		t.Error(err, asked)
	}
	answer = nil
	v.clock.advance(31 * time.Second)
	if _, err := v.Check(t.Context(), token, MaxTokenAge(time.Minute)); err != nil || asked != 0 {
		t.Error(err, asked)
	}
	if _, err := v.Check(t.Context(), token, MaxTokenAge(30*time.Second)); err != nil || asked != 1 {
		t.Error(err, asked)
	}
	if _, err := v.Check(t.Context(), token, MaxTokenAge(30*time.Second), RefreshWhenOld()); !errors.Is(err, ErrTokenTooOld) || asked != 1 {
		t.Error(err, asked)
	}
	// A role that was taken away is told as staleness, not as a final no.
	answer = ErrTokenStale
	if _, err := v.Check(t.Context(), token, Live(), Role("admin")); !errors.Is(err, ErrTokenStale) {
		t.Error(err)
	}
}

func TestLivePanicIsUnavailable(t *testing.T) {
	v := newLocal(t, func(_ *Config, l *Local) {
		l.Live = func(context.Context, *Claims) error { panic("boom") }
	})
	if _, err := v.Check(t.Context(), v.key.mint(t, goodClaims(start)), Live()); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

// Who comes while a question is on its way must not get its answer: the
// session may have ended after it was sent.
func TestLiveJoinsOnlyAQuestionNotYetSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		var ended atomic.Bool
		a := newAsker(2*time.Second, func(context.Context, string, *Claims) error {
			sent.Add(1)
			revoked := ended.Load() // the authority reads when the question arrives
			time.Sleep(500 * time.Millisecond)
			if revoked {
				return ErrSessionRevoked
			}
			return nil
		})
		var wg sync.WaitGroup
		first := make(chan error, 1)
		wg.Go(func() { first <- a.ask(t.Context(), "t", nil) })
		synctest.Wait()
		ended.Store(true)
		late := make(chan error, 100)
		for range cap(late) {
			wg.Go(func() { late <- a.ask(t.Context(), "t", nil) })
		}
		other := make(chan error, 1)
		wg.Go(func() { other <- a.ask(t.Context(), "another", nil) })
		wg.Wait()
		if err := <-first; err != nil {
			t.Error(err)
		}
		for range cap(late) {
			if err := <-late; !errors.Is(err, ErrSessionRevoked) {
				t.Fatal(err)
			}
		}
		if err := <-other; !errors.Is(err, ErrSessionRevoked) {
			t.Error(err)
		}
		if n := sent.Load(); n != 3 {
			t.Errorf("%d questions, want 3", n)
		}
		synctest.Wait()
		if len(a.queues) != 0 {
			t.Errorf("%d queues are left", len(a.queues))
		}
	})
}

func TestLiveFailsClosedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		a := newAsker(2*time.Second, func(ctx context.Context, _ string, _ *Claims) error {
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		begin := time.Now()
		if err := a.ask(t.Context(), "t", nil); !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("took %v", took)
		}
		synctest.Wait()

		// Who gives up does not take the others along.
		ctx, cancel := context.WithCancel(t.Context())
		gaveUp, stayed := make(chan error, 1), make(chan error, 1)
		blocker := make(chan error, 1)
		go func() { blocker <- a.ask(t.Context(), "t", nil) }()
		synctest.Wait()
		go func() { gaveUp <- a.ask(ctx, "t", nil) }()
		synctest.Wait()
		go func() { stayed <- a.ask(t.Context(), "t", nil) }()
		synctest.Wait()
		cancel()
		if err := <-gaveUp; !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		close(release)
		if err := <-blocker; err != nil {
			t.Error(err)
		}
		if err := <-stayed; err != nil {
			t.Error(err)
		}
	})
}
