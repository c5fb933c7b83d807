package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/directory"
)

// counters reads the counters of the keys without changing them.
func (e *env) counters(keys ...string) (got []directory.Counter) {
	e.t.Helper()
	leave := errors.New("leave them")
	err := e.Users.Throttle(e.ctx, keys, func(c []directory.Counter) error {
		got = append([]directory.Counter(nil), c...)
		return leave
	})
	e.wantErr("Throttle", err, leave)
	if len(got) != len(keys) {
		e.t.Fatalf("Throttle gave %d counters for %d keys", len(got), len(keys))
	}
	return got
}

func (e *env) throttle(fn func([]directory.Counter), keys ...string) {
	e.t.Helper()
	e.must("Throttle", e.Users.Throttle(e.ctx, keys, func(c []directory.Counter) error {
		fn(c)
		return nil
	}))
}

var throttleDuties = []duty{
	{"Counters start at zero, in the order of the keys", func(t *testing.T, e *env) {
		for i, c := range e.counters("b", "a", "c'; --") {
			if c.Failures != 0 || !c.NotBefore.IsZero() || c.Key != []string{"b", "a", "c'; --"}[i] {
				t.Errorf("got %+v, want a zero counter with its key", c)
			}
		}
	}},
	{"Counters keep what fn writes", func(t *testing.T, e *env) {
		soon, late := e.clock.now().Add(time.Minute), e.clock.now().Add(time.Hour)
		e.throttle(func(c []directory.Counter) {
			c[0].Failures, c[0].NotBefore, c[0].ExpiresAt = 3, soon, late
			c[1].Failures, c[1].ExpiresAt = 5, late
		}, "a", "b")
		got := e.counters("b", "x", "a")
		if got[0].Failures != 5 || got[1].Failures != 0 || got[2].Failures != 3 {
			t.Errorf("got %+v, want 5, 0 and 3 failures", got)
		}
		sameTime(t, "NotBefore", got[2].NotBefore, soon)
		sameTime(t, "ExpiresAt", got[2].ExpiresAt, late)
		if !got[0].NotBefore.IsZero() {
			t.Errorf("NotBefore: got %s, want the zero time", got[0].NotBefore)
		}
		e.throttle(func(c []directory.Counter) { c[0] = directory.Counter{Key: "a"} }, "a")
		if c := e.counters("a")[0]; c.Failures != 0 {
			t.Errorf("got %+v, want what was set back to be zero", c)
		}
	}},
	{"Counters stay when fn fails", func(t *testing.T, e *env) {
		late := e.clock.now().Add(time.Hour)
		e.throttle(func(c []directory.Counter) { c[0].Failures, c[0].ExpiresAt = 1, late }, "a")
		mine := errors.New("mine")
		err := e.Users.Throttle(e.ctx, []string{"a", "b"}, func(c []directory.Counter) error {
			for i := range c {
				c[i].Failures, c[i].ExpiresAt = 9, late
			}
			return mine
		})
		e.wantErr("Throttle", err, mine)
		if got := e.counters("a", "b"); got[0].Failures != 1 || got[1].Failures != 0 {
			t.Errorf("got %+v, want 1 and 0 failures as before", got)
		}
	}},
	{"Counters that are past read as zero", func(t *testing.T, e *env) {
		e.throttle(func(c []directory.Counter) {
			c[0].Failures, c[0].ExpiresAt = 3, e.clock.now().Add(time.Minute)
			c[1].Failures, c[1].ExpiresAt = 4, e.clock.now().Add(time.Hour)
		}, "short", "long")
		e.clock.move(2 * time.Minute)
		if got := e.counters("short", "long"); got[0].Failures != 0 || !got[0].NotBefore.IsZero() || got[1].Failures != 4 {
			t.Errorf("got %+v, want 0 and 4 failures", got)
		}
		e.throttle(func(c []directory.Counter) { c[0].Failures++; c[0].ExpiresAt = e.clock.now().Add(time.Minute) }, "short")
		if got := e.counters("short"); got[0].Failures != 1 {
			t.Errorf("got %+v, want it to count from zero", got)
		}
		e.clock.move(100 * time.Hour)
		if got := e.counters("short", "long"); got[0].Failures != 0 || got[1].Failures != 0 {
			t.Errorf("got %+v, want zero ones", got)
		}
	}},
	{"Parallel attempts are all counted", func(t *testing.T, e *env) {
		// Keys overlap and come in different orders, as of accounts and networks.
		keys := [][]string{{"a", "b"}, {"b", "a"}, {"b", "c"}, {"c", "a"}}
		parallel(times(writers, func(i int) {
			for range writes {
				err := e.Users.Throttle(e.ctx, keys[i%len(keys)], func(c []directory.Counter) error {
					for j := range c {
						c[j].Failures++
						c[j].ExpiresAt = e.clock.now().Add(time.Hour)
					}
					return nil
				})
				if err != nil {
					t.Errorf("Throttle: %v", err)
				}
			}
		})...)
		want := []int{3 * writers / 4 * writes, 3 * writers / 4 * writes, 2 * writers / 4 * writes}
		for i, c := range e.counters("a", "b", "c") {
			if c.Failures != want[i] {
				t.Errorf("%s: got %d failures, want %d: attempts were lost", c.Key, c.Failures, want[i])
			}
		}
	}},
}
