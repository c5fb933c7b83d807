// Package metrics counts, and writes what was counted in the text format that
// Prometheus reads (version 0.0.4).
package metrics

import (
	"slices"
	"sync/atomic"
	"time"
)

// Histogram counts durations by size. It is safe for concurrent use, and
// costs a few atomic additions.
type Histogram struct {
	bounds []time.Duration
	counts []atomic.Uint64 // one more than bounds
	sum    atomic.Int64    // nanoseconds
}

// NewHistogram returns a histogram with these upper bounds, in rising order.
func NewHistogram(bounds ...time.Duration) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// Observe counts one duration; a negative one as none.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	i, _ := slices.BinarySearch(h.bounds, d)
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Distribution is what a histogram has counted.
type Distribution struct {
	// Bounds are the upper bounds of the buckets, in rising order.
	Bounds []time.Duration
	// Counts has one number a bucket, not summed up, and behind them the
	// number of those above the last bound.
	Counts []uint64
	// Sum of all.
	Sum time.Duration
}

// Distribution returns what was counted until now.
func (h *Histogram) Distribution() Distribution {
	d := Distribution{Bounds: h.bounds, Counts: make([]uint64, len(h.counts)), Sum: time.Duration(h.sum.Load())}
	for i := range h.counts {
		d.Counts[i] = h.counts[i].Load()
	}
	return d
}
