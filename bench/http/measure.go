//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/bench/internal/load"
	"github.com/counterfoil/counterfoil/bench/internal/stage"
)

// bench is one run.
type bench struct {
	settings
	ceiling    *stage.Process
	contenders []*contender
	ceilings   []sample
	began      time.Time
}

// measure goes through everything once a round, so that the machine's moods
// spread over all.
func (b *bench) measure(ctx context.Context) error {
	for _, c := range b.contenders {
		for _, k := range c.calls {
			k.cells = map[cell][]sample{}
			if err := c.count(ctx, k); err != nil {
				return fmt.Errorf("%s on %s: count the statements of %s: %w", c.name, c.store, k.name, err)
			}
		}
	}
	for i, loaded := range b.loaded {
		if err := b.load(ctx, loaded); err != nil {
			return err
		}
		if err := b.rounded(ctx, loaded, i == len(b.loaded)-1); err != nil {
			return err
		}
	}
	return nil
}

// rounded measures with so many sessions loaded. Before the last such number
// it is only for what the growth costs: one number of connections.
func (b *bench) rounded(ctx context.Context, loaded int, last bool) error {
	connections := b.connections
	if !last {
		connections = connections[:1]
	}
	for round := range b.rounds {
		for _, connections := range connections {
			for _, c := range b.contenders {
				for _, k := range c.calls {
					if ctx.Err() != nil {
						return context.Cause(ctx)
					}
					if b.over() {
						return nil
					}
					got, err := b.sample(ctx, c, k, connections)
					if err != nil {
						return fmt.Errorf("%s on %s: %s: %w", c.name, c.store, k.name, err)
					}
					at := cell{loaded, connections}
					k.cells[at] = append(k.cells[at], got)
				}
			}
		}
		fmt.Fprintf(os.Stderr, "%d sessions loaded: round %d of %d\n", loaded, round+1, b.rounds)
	}
	return nil
}

// over says that the time for the run is.
func (b *bench) over() bool { return b.limit > 0 && time.Since(b.began) > b.limit }

// load brings the data of each store to so many sessions.
func (b *bench) load(ctx context.Context, sessions int) error {
	done := map[*data]bool{}
	for _, c := range b.contenders {
		if c.data == nil || done[c.data] {
			continue
		}
		done[c.data] = true
		began := time.Now()
		if err := c.data.grow(ctx, sessions); err != nil {
			return fmt.Errorf("load %d sessions into %s of %s: %w", sessions, c.store, c.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s, %s: %d sessions loaded in %s\n", c.store, c.name, sessions, time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// count finds how many statements a call sends.
func (c *contender) count(ctx context.Context, k *call) error {
	k.statements = -1
	if c.postgres == nil || k.uncounted {
		return nil
	}
	requests, _, err := k.prepare(ctx)
	if err != nil {
		return err
	}
	half := len(requests) / 2
	send := func(requests [][]byte) func() error {
		return func() error { return once(ctx, c.addresses[0], k.status, requests, k.keep) }
	}
	total, err := c.postgres.Count(ctx, c.database, send(requests[:half]), send(requests[half:]))
	k.statements = float64(total) / float64(len(requests)-half)
	return err
}

// sample measures one call, and the ceiling just before it.
func (b *bench) sample(ctx context.Context, c *contender, k *call, connections int) (s sample, err error) {
	if err := b.settle(ctx); err != nil {
		return s, err
	}
	ask := load.Request("GET", "/", b.ceiling.Address, "")
	bare := load.Plan{Address: b.ceiling.Address, Connections: connections, Duration: b.window / 8, Next: load.Repeat([][]byte{ask}), Status: 200}
	if _, err := load.Run(ctx, bare); err != nil {
		return s, err
	}
	bare.Duration = b.window / 2
	top, topCPU, err := timed(ctx, bare, nil, b.ceiling.PID)
	if err != nil {
		return s, fmt.Errorf("ceiling: %w", err)
	}
	b.ceilings = append(b.ceilings, sample{rate: top.Rate(), p50: top.Percentile(50), p99: top.Percentile(99), server: topCPU.server, others: topCPU.others})

	requests, once, err := k.prepare(ctx)
	if err != nil {
		return s, err
	}
	if len(requests) == 0 {
		return s, errors.New("nothing to send")
	}
	plan := load.Plan{Address: c.addresses[0], Others: c.addresses[1:], Connections: connections, Duration: b.window / 4, Status: k.status, Keep: k.keep, Next: load.Repeat(requests)}
	if once {
		warm := len(requests) / 5
		plan.Next = load.Once(requests[:warm])
		requests = requests[warm:]
	}
	if _, err := load.Run(ctx, plan); err != nil {
		return s, err
	}
	if once {
		plan.Next = load.Once(requests)
	}
	plan.Duration = b.window
	profiled, err := b.startProfile(ctx, c, k, connections)
	if err != nil {
		return s, err
	}
	got, cpu, err := timed(ctx, plan, c.storePIDs, c.pids...)
	if err := errors.Join(err, <-profiled); err != nil {
		return s, err
	}
	return sample{
		rate: got.Rate(), ratio: got.Rate() / top.Rate(), cpuRatio: float64(topCPU.sum()) / float64(cpu.sum()),
		p50: got.Percentile(50), p99: got.Percentile(99), server: cpu.server, store: cpu.store, others: max(cpu.others, topCPU.others),
	}, nil
}

// settle waits until other programs leave the machine alone, for as long as
// there is patience.
func (b *bench) settle(ctx context.Context) error {
	const look = 200 * time.Millisecond
	for end := time.Now().Add(b.patience); time.Now().Before(end); {
		before, err := stage.Busy()
		if err != nil {
			return err
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		after, err := stage.Busy()
		if err != nil || float64(after-before) <= quiet*float64(look) {
			return err
		}
	}
	return nil
}

// quiet is how many processors other programs may keep busy on a machine that
// counts as quiet.
const quiet = 0.15

// cpu is processor time: a request's, and in others how many processors were
// busy with something else.
type cpu struct {
	server, store, generator time.Duration
	others                   float64
}

func (c cpu) sum() time.Duration { return c.server + c.store + c.generator }

// timed runs a plan and tells who used how much processor time.
func timed(ctx context.Context, plan load.Plan, storePIDs func() ([]int, error), servers ...int) (r load.Result, used cpu, err error) {
	var store []int
	if storePIDs != nil {
		if store, err = storePIDs(); err != nil {
			return r, used, err
		}
	}
	before, err := spent(servers, store)
	if err != nil {
		return r, used, err
	}
	start := time.Now()
	if r, err = load.Run(ctx, plan); err != nil {
		return r, used, err
	}
	took := time.Since(start)
	after, err := spent(servers, store)
	if err != nil {
		return r, used, err
	}
	if r.Requests == 0 {
		return r, used, errors.New("no request was answered")
	}
	var sum cpu
	for pid, then := range after.processes {
		since := then - before.processes[pid]
		switch {
		case slices.Contains(servers, pid):
			sum.server += since
		case pid == os.Getpid():
			sum.generator += since
		default:
			sum.store += since
		}
	}
	n := time.Duration(r.Requests)
	return r, cpu{
		server: sum.server / n, store: sum.store / n, generator: sum.generator / n,
		others: max(0, float64(after.machine-before.machine-sum.sum())/float64(took)),
	}, nil
}

// account is processor time since the beginning.
type account struct {
	processes map[int]time.Duration
	machine   time.Duration
}

func spent(servers, store []int) (a account, err error) {
	if a.processes, err = stage.CPUTime(append(append([]int{os.Getpid()}, servers...), store...)...); err != nil {
		return a, err
	}
	a.machine, err = stage.Busy()
	return a, err
}

// startProfile profiles a contender during one measurement, if asked to.
func (b *bench) startProfile(ctx context.Context, c *contender, k *call, connections int) (<-chan error, error) {
	done := make(chan error, 1)
	if b.profile == "" || c.profile == "" {
		done <- nil
		return done, nil
	}
	if err := os.MkdirAll(b.profile, 0o755); err != nil {
		return nil, err
	}
	name := strings.NewReplacer(" ", "-", ",", "", "/", "").Replace(fmt.Sprintf("%s-%s-%d.pprof", c.store, k.name, connections))
	seconds := max(1, int(b.window/time.Second))
	go func() { done <- stage.Profile(ctx, c.profile, filepath.Join(b.profile, name), seconds) }()
	return done, nil
}
