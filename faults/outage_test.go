//go:build linux

package faults

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// kind is a sort of call that clients make.
type kind string

const (
	signIn     kind = "sign-in"
	refresh    kind = "refresh"
	revoke     kind = "revoke"
	everywhere kind = "everywhere"
	disable    kind = "disable" // a user of the directory
)

// outages times how long calls of each kind did not succeed.
type outages struct {
	mu    sync.Mutex
	kinds map[kind]*outage
}

type outage struct {
	good, failed int
	last         time.Time     // when one went well last
	since        time.Time     // from when on none did; zero: no failure after the last success
	longest      time.Duration // first failed to first good
	held         time.Duration // the longest that one call took, its repetitions included
}

func newOutages() *outages { return &outages{kinds: map[kind]*outage{}} }

func (o *outages) of(k kind) *outage {
	if o.kinds[k] == nil {
		o.kinds[k] = &outage{}
	}
	return o.kinds[k]
}

// attempt takes note of one request. asked is when its call began.
func (o *outages) attempt(k kind, ok bool, asked, began, ended time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.of(k)
	switch {
	case !ok:
		x.failed++
		if x.since.IsZero() {
			x.since = began
			if x.last.After(began) {
				x.since = x.last // others went well meanwhile
			}
		}
	default:
		x.good++
		x.last = ended
		x.held = max(x.held, ended.Sub(asked))
		if !x.since.IsZero() {
			x.longest = max(x.longest, ended.Sub(x.since))
			x.since = time.Time{}
		}
	}
}

// longest is the longest outage of any kind that has ended.
func (o *outages) longest() (worst time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, x := range o.kinds {
		worst = max(worst, x.longest)
	}
	return worst
}

func (o *outages) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(o.kinds)) {
		x := o.kinds[k]
		fmt.Fprintf(&b, "%s: %d good, %d failed, none good for %s, one took %s; ", k, x.good, x.failed, round(x.longest), round(x.held))
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
