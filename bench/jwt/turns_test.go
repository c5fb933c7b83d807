package jwt

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// candidate is one way to do the same work.
type candidate struct {
	name string
	run  func(n int) error // the n-th time since prepare
}

// inTurns runs the candidates by turns, a slice of time each, and reports the
// CPU time of the first and by how many times the others take more. CPU time
// of the process counts the garbage collector's too, and what other programs
// do to the machine hits all candidates alike. prepare is called before each
// round, outside of the times, with how often at most each candidate will run.
func inTurns(b *testing.B, prepare func(most int), candidates []candidate) {
	const slice = 10 * time.Millisecond
	const tries = 10
	repeats := make([]int, len(candidates))
	prepare(tries)
	for i, c := range candidates {
		repeats[i] = max(1, int(slice*tries/max(c.time(b, tries), 1)))
	}
	most := slices.Max(repeats)
	costs := make([][]float64, len(candidates))
	for b.Loop() {
		prepare(most)
		for i, c := range candidates {
			costs[i] = append(costs[i], float64(c.time(b, repeats[i]))/float64(repeats[i]))
		}
	}
	first := median(costs[0])
	b.ReportMetric(first, candidates[0].name+"-ns")
	for i, c := range candidates[1:] {
		b.ReportMetric(median(costs[i+1])/first, c.name+"-x")
	}
	b.ReportMetric(0, "ns/op") // of all together, which says nothing
}

// time runs a candidate so often and returns what that took.
func (c candidate) time(b *testing.B, times int) time.Duration {
	start := cpuTime(b)
	for n := range times {
		if err := c.run(n); err != nil {
			b.Fatalf("%s: %v", c.name, err)
		}
	}
	return cpuTime(b) - start
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func cpuTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}
