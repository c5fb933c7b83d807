package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		n               int
		p50, p99, worst time.Duration
	}{{1, 1, 1, 1}, {2, 1, 2, 2}, {100, 50, 99, 100}, {1000, 500, 990, 1000}} {
		times := make([]time.Duration, c.n)
		for i := range times {
			times[i] = time.Duration(c.n - i)
		}
		if got, want := spread(times), (benchTimes{c.n, c.p50, c.p99, c.worst}); got != want {
			t.Errorf("of %d: %+v, want %+v", c.n, got, want)
		}
	}
}

func TestShortTime(t *testing.T) {
	for d, want := range map[time.Duration]string{
		84: "84 ns", 1720: "1.72 µs", 18800: "18.8 µs", 247 * time.Microsecond: "247 µs", 37400 * time.Microsecond: "37.4 ms", 2500 * time.Millisecond: "2.50 s",
	} {
		if got := shortTime(d); got != want {
			t.Errorf("%d ns: %q, want %q", d, got, want)
		}
	}
	for x, want := range map[float64]string{1854: "1854", 40432: "40.4 thousand", 1.18e7: "11.8 million"} {
		if got := perSecond(x); got != want {
			t.Errorf("%v: %q, want %q", x, got, want)
		}
	}
}

// Interrupted in the middle, it says so and leaves nothing.
func TestBenchInterrupted(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := measure(ctx, benchPlan{verifiers: 3, revocations: 1000, duration: time.Millisecond}, func(what string) {
		if strings.HasPrefix(what, "revoking: 2 ") {
			cancel()
		}
	})
	if err == nil {
		t.Error("it was interrupted and ended well")
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
