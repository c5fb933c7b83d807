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
	run  func() error
}

// inTurns runs the candidates by turns, a slice of time each, and reports the
// CPU time of the first and by how many times the others take more. CPU time
// of the process counts the garbage collector's too, and what other programs
// do to the machine hits all candidates alike.
func inTurns(b *testing.B, candidates []candidate) {
	const slice = 20 * time.Millisecond
	repeats := make([]int, len(candidates))
	for i, c := range candidates {
		const tries = 10
		start := cpuTime(b)
		for range tries {
			if err := c.run(); err != nil {
				b.Fatalf("%s: %v", c.name, err)
			}
		}
		repeats[i] = int(slice * tries / max(cpuTime(b)-start, 1))
		repeats[i] = max(repeats[i], 1)
	}
	costs := make([][]float64, len(candidates))
	for b.Loop() {
		for i, c := range candidates {
			start := cpuTime(b)
			for range repeats[i] {
				if err := c.run(); err != nil {
					b.Fatalf("%s: %v", c.name, err)
				}
			}
			costs[i] = append(costs[i], float64(cpuTime(b)-start)/float64(repeats[i]))
		}
	}
	first := median(costs[0])
	b.ReportMetric(first, candidates[0].name+"-ns")
	for i, c := range candidates[1:] {
		b.ReportMetric(median(costs[i+1])/first, c.name+"-x")
	}
	b.ReportMetric(0, "ns/op") // of all together, which says nothing
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
