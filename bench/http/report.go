//go:build linux

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// report prints the medians over the rounds as a table of Markdown.
func (b *bench) report(out io.Writer) {
	rate := func(s sample) float64 { return s.rate }
	fmt.Fprintf(out, "Ceiling (net/http, 11 bytes): %.0f requests/s, %.1f µs of processor time in the server.\n\n",
		middle(b.ceilings, rate), microseconds(middle(b.ceilings, func(s sample) time.Duration { return s.server })))
	fmt.Fprintf(out, "A ratio is of requests a second; \"by CPU\" is the same of processor time a request, whole machine. Others: processors busy with other programs; above %.2f the figures are worth less.\n\n", quiet)
	last := b.loaded[len(b.loaded)-1]
	fmt.Fprintf(out, "With %d sessions loaded:\n\n", last)
	fmt.Fprintln(out, "| store | server | call | connections | requests/s | ratio (range) | by CPU | goal | p50 ms | p99 ms | CPU µs server + store | statements | others |")
	fmt.Fprintln(out, "|---|---|---|---:|---:|---|---:|---|---:|---:|---:|---:|---:|")
	for _, c := range b.contenders {
		for _, k := range c.calls {
			for _, connections := range b.connections {
				cell := k.cells[cell{last, connections}]
				if len(cell) == 0 {
					continue // the time was over
				}
				ratio := func(s sample) float64 { return s.ratio }
				least := slices.MinFunc(cell, by(ratio)).ratio
				most := slices.MaxFunc(cell, by(ratio)).ratio
				fmt.Fprintf(out, "| %s | %s | %s | %d | %.0f | %.3f (%.3f–%.3f) | %.3f | %s | %.2f | %.2f | %.0f + %.0f | %s | %.1f |\n",
					c.store, c.name, k.name, connections, middle(cell, rate), middle(cell, ratio), least, most,
					middle(cell, func(s sample) float64 { return s.cpuRatio }), k.verdict(middle(cell, ratio)),
					microseconds(middle(cell, func(s sample) time.Duration { return s.p50 }))/1000,
					microseconds(middle(cell, func(s sample) time.Duration { return s.p99 }))/1000,
					microseconds(middle(cell, func(s sample) time.Duration { return s.server })),
					microseconds(middle(cell, func(s sample) time.Duration { return s.store })), k.counted(), middle(cell, func(s sample) float64 { return s.others }))
			}
		}
	}
	b.reportSizes(out)
	b.reportGrowth(out)
}

// reportSizes prints what a session takes.
func (b *bench) reportSizes(out io.Writer) {
	fmt.Fprintf(out, "\n| store | server | sessions loaded | bytes each |\n|---|---|---:|---:|\n")
	done := map[*data]bool{}
	for _, c := range b.contenders {
		if c.data == nil || done[c.data] {
			continue
		}
		done[c.data] = true
		for _, loaded := range slices.Sorted(maps.Keys(c.data.bytes)) {
			fmt.Fprintf(out, "| %s | %s | %d | %.0f |\n", c.store, c.name, loaded, c.data.bytes[loaded])
		}
	}
}

// reportGrowth prints what a call costs with all loaded, as a ratio to what it
// costs with the fewest: in requests a second relative to the ceiling of the
// moment, and in processor time.
func (b *bench) reportGrowth(out io.Writer) {
	first, last := b.loaded[0], b.loaded[len(b.loaded)-1]
	if first == last {
		return
	}
	fmt.Fprintf(out, "\n| from %d to %d sessions | server | call | times the cost | by CPU |\n|---|---|---|---:|---:|\n", first, last)
	for _, c := range b.contenders {
		for _, k := range c.calls {
			few, many := k.cells[cell{first, b.connections[0]}], k.cells[cell{last, b.connections[0]}]
			if len(few) == 0 || len(many) == 0 {
				continue
			}
			ratio, cpu := func(s sample) float64 { return s.ratio }, func(s sample) float64 { return s.cpuRatio }
			fmt.Fprintf(out, "| %s | %s | %s | %.2f | %.2f |\n", c.store, c.name, k.name, middle(few, ratio)/middle(many, ratio), middle(few, cpu)/middle(many, cpu))
		}
	}
}

func (k *call) verdict(ratio float64) string {
	switch {
	case k.goal == 0:
		return ""
	case ratio >= k.goal:
		return fmt.Sprintf("%.2f met", k.goal)
	}
	return fmt.Sprintf("%.2f **missed**", k.goal)
}

func (k *call) counted() string {
	if k.statements < 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", k.statements)
}

func by[T ~int64 | ~float64](of func(sample) T) func(a, b sample) int {
	return func(a, b sample) int {
		switch {
		case of(a) < of(b):
			return -1
		case of(a) > of(b):
			return 1
		}
		return 0
	}
}

// middle is the median of one figure.
func middle[T ~int64 | ~float64](samples []sample, of func(sample) T) T {
	sorted := slices.SortedFunc(slices.Values(samples), by(of))
	return (of(sorted[(len(sorted)-1)/2]) + of(sorted[len(sorted)/2])) / 2
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
