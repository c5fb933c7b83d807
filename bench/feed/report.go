//go:build linux

package main

import (
	"fmt"
	"io"
	"iter"
	"slices"
	"time"
)

// spread is some of a number of times (nearest rank).
type spread struct {
	n                     int
	p50, p99, p999, worst time.Duration
}

func spreadOf(times []int64) spread {
	if len(times) == 0 {
		return spread{}
	}
	slices.Sort(times)
	at := func(perMille int) time.Duration { return time.Duration(times[(len(times)*perMille+999)/1000-1]) }
	return spread{len(times), at(500), at(990), at(999), at(1000)}
}

// since is how long after a moment others were.
func since(moment int64, times []int64) spread {
	after := make([]int64, len(times))
	for i, t := range times {
		after[i] = t - moment
	}
	return spreadOf(after)
}

// taking goes through the first and each so manieth after it.
func taking[T any](list []T, every int) iter.Seq[T] {
	return func(yield func(T) bool) {
		for i := 0; i < len(list); i += every {
			if !yield(list[i]) {
				return
			}
		}
	}
}

// report prints the tables as Markdown.
func (b *bench) report(out io.Writer) {
	fmt.Fprintf(out, "%d verifiers in %d process(es) of one processor each, the server has %d. Times in ms: p50 / p99 / p99.9 / worst.\n\n", b.verifiers, b.processes, b.serverUse)
	fmt.Fprintln(out, "| server | revocations/s (timed) | call → refused at all | times the floor, p50 / p99 | answer → refused at all | call → refused at each | processors: server | verifiers | µs an event and connection | others |")
	fmt.Fprintln(out, "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
	floors := map[bool]*group{}
	for _, g := range b.groups {
		if g.floor {
			floors[g.secure] = g
		}
		for i, l := range g.lags {
			times, returned, holders, others := "", "", "", ""
			if f := floors[g.secure]; f != nil && !g.floor {
				times = fmt.Sprintf("%.1f / %.1f", ratio(l.all.p50, f.lags[i].all.p50), ratio(l.all.p99, f.lags[i].all.p99))
			}
			if !g.floor {
				returned, holders, others = l.returned.String(), fmt.Sprintf("%.2f", l.holders), fmt.Sprintf("%.1f", l.others)
			}
			fmt.Fprintf(out, "| %s | %d (%d) | %s | %s | %s | %s | %.2f | %s | %.1f | %s |\n", g.name, l.rate, l.taken, l.all, times, returned, l.each,
				l.processors, holders, float64(l.write.Nanoseconds())/1000, others)
		}
	}
	fmt.Fprintln(out, "\n| server | kB a connection | processors at rest | age that healthy verifiers tell |\n|---|---:|---:|---:|")
	for _, g := range b.groups {
		ages := ""
		if g.ages.n > 0 {
			ages = g.ages.String()
		}
		fmt.Fprintf(out, "| %s | %.1f | %.3f | %s |\n", g.name, g.memory/1000, g.idle, ages)
	}
	fmt.Fprintln(out, "\n| server | what happened | verifiers: p50 / p99 / p99.9 / worst |\n|---|---|---:|")
	for _, g := range b.groups {
		for _, c := range g.cuts {
			fmt.Fprintf(out, "| %s | %s | %s |\n", g.name, c.name, c.spread)
		}
	}
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }

func (s spread) String() string {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }
	return ms(s.p50) + " / " + ms(s.p99) + " / " + ms(s.p999) + " / " + ms(s.worst)
}
