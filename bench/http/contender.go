//go:build linux

package main

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil/bench/internal/load"
	"github.com/counterfoil/counterfoil/bench/internal/stage"
)

// contender is a server on a store, of one node or several, with the calls that are measured.
type contender struct {
	name  string
	store string
	calls []*call

	addresses []string // of its nodes
	pids      []int
	database  string // counted in postgres
	postgres  *stage.Postgres
	redis     *stage.Redis
	profile   string // address
	data      *data  // the store's; nil: nothing is loaded
}

// call is one kind of request. Its measurements gather in cells, one for each
// number of loaded sessions and of connections.
type call struct {
	name string
	goal float64 // of the ratio to the ceiling; 0: none
	// uncounted: its statements are not worth counting.
	uncounted bool
	status    int
	// prepare is called before each measurement, and returns the requests and
	// whether each may be sent once only.
	prepare func(ctx context.Context) (requests [][]byte, once bool, err error)
	keep    func(body []byte)

	statements float64 // a request; below 0: not counted
	cells      map[cell][]sample
}

// cell is where a measurement belongs.
type cell struct{ loaded, connections int }

// sample is one measurement.
type sample struct {
	rate, ratio, cpuRatio float64
	p50, p99              time.Duration
	server, store         time.Duration // processor time a request
	others                float64       // processors busy with something else
}

// storePIDs are the processes of the store, where it has its own.
func (c *contender) storePIDs() (pids []int, err error) {
	if c.postgres != nil {
		pids, err = c.postgres.PIDs()
	}
	if c.redis != nil {
		pids = append(pids, c.redis.Pid())
	}
	return pids, err
}

// always is a prepare for requests that can be repeated.
func always(requests [][]byte) func(context.Context) ([][]byte, bool, error) {
	return func(context.Context) ([][]byte, bool, error) { return requests, false, nil }
}

// harvest gathers session ids from the answers to sign-ins, for what ends them.
type harvest struct {
	mu   sync.Mutex
	sids []string
}

// add finds the member sid of an answer without reading all of it: this
// program shares the processors with the server.
func (h *harvest) add(body []byte) {
	_, rest, _ := bytes.Cut(body, []byte(`"sid":"`))
	sid, _, _ := bytes.Cut(rest, []byte(`"`))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sids = append(h.sids, string(sid))
}

func (h *harvest) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	sids := h.sids
	h.sids = nil
	return sids
}

// once sends each request once, over a few connections, for set-up.
func once(ctx context.Context, address string, status int, requests [][]byte, keep func([]byte)) error {
	_, err := load.Run(ctx, load.Plan{Address: address, Connections: 8, Duration: time.Minute,
		Next: load.Once(requests), Status: status, Keep: keep})
	return err
}
