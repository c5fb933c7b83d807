//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/counterfoil/counterfoil/bench/internal/stage"
)

// bench is one run.
type bench struct {
	settings
	dir    string
	binary string
	pair   pair
	groups []*group
}

// group is what was measured of one server.
type group struct {
	name   string
	floor  bool
	secure bool
	lags   []lag
	idle   float64       // processors that the server uses while nothing happens
	memory float64       // bytes a connection
	ages   spread        // what healthy verifiers say
	cuts   []namedSpread // what takes how long after a cut
}

type namedSpread struct {
	name string
	spread
}

// lag is of one rate of revocations.
type lag struct {
	rate, events, taken int
	all                 spread        // from the call until the last verifier
	returned            spread        // from the answer until the last verifier
	each                spread        // from the call until each verifier
	processors          float64       // of the server
	holders             float64       // of those who hold the verifiers
	write               time.Duration // of the server, an event and connection, without what it uses idle
	others              float64       // processors busy with other programs
}

// taken is of how many revocations a second the times are taken at most: to
// watch takes time too.
const taken = 12

// every is how many events come for one whose time is taken.
func every(rate int) int { return max(1, rate/taken) }

func (b *bench) measure(ctx context.Context) (err error) {
	if b.binary, err = stage.Build(ctx, b.dir, b.profile != ""); err != nil {
		return err
	}
	if b.pair, err = newPair(b.dir); err != nil {
		return err
	}
	for _, secure := range b.tls {
		if err := b.onFloor(ctx, secure); err != nil {
			return fmt.Errorf("the floor: %w", err)
		}
		for _, bare := range []int{0, b.bare()} {
			if err := b.onSQLite(ctx, secure, bare); err != nil {
				return fmt.Errorf("counterfoil on SQLite: %w", err)
			}
		}
	}
	for _, n := range b.relays {
		if err := b.onRelays(ctx, n); err != nil {
			return fmt.Errorf("behind %d relays: %w", n, err)
		}
	}
	if b.postgres {
		if err := b.onPostgres(ctx); err != nil {
			return fmt.Errorf("counterfoil on PostgreSQL: %w", err)
		}
	}
	return nil
}

// bare is how many of the verifiers are replaced by bare readers where they
// would need more processors than there are: each decodes and applies all that
// is revoked, and at 1,000 a second a thousand of them would need several.
func (b *bench) bare() int { return b.verifiers * 9 / 10 }

// mostApplied is how many revocations a second are measured where there are no
// bare readers.
const mostApplied = 100

func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// start starts processes that hold so many verifiers or readers.
func start(name string, processes, n int, f Following) (holders []*role, err error) {
	for range processes {
		p, err := startRole(name)
		if err != nil {
			return holders, err
		}
		holders = append(holders, p)
	}
	return holders, all(holders, "Start", func(i int) any {
		part := f
		part.N = (i+1)*n/processes - i*n/processes
		return part
	}, nothing)
}

func nothing(int) any          { return new(None) }
func noArgs(int) any           { return None{} }
func same(v any) func(int) any { return func(int) any { return v } }

// gather has each process do something that returns times, and puts them together.
func gather[T any](holders []*role, method string, args any) ([]T, error) {
	parts := make([][]T, len(holders))
	err := all(holders, method, same(args), func(i int) any { return &parts[i] })
	return slices.Concat(parts...), err
}

// onFloor measures the bare server.
func (b *bench) onFloor(ctx context.Context, secure bool) (err error) {
	g := &group{name: "bare server-sent events, " + mode(secure), floor: true, secure: secure}
	server, err := startRole("broadcast")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	var keys Keys
	var f Following
	if secure {
		keys, f.Certificate = Keys{b.pair.certificate, b.pair.key}, b.pair.certificate
	}
	if err := server.do("Open", keys, &f.Address); err != nil {
		return err
	}
	pid := server.cmd.Process.Pid
	before, _, err := stage.Memory(pid)
	if err != nil {
		return err
	}
	f.Path = "/"
	readers, err := start("listeners", 1, b.verifiers, f)
	defer func() {
		for _, r := range readers {
			err = errors.Join(err, r.Stop())
		}
	}()
	if err != nil {
		return err
	}
	if _, err := gather[int64](readers, "Back", None{}); err != nil {
		return err
	}
	if err := b.rest(ctx, g, pid, before); err != nil {
		return err
	}
	seen := 0
	for _, rate := range b.rates {
		b.progress("%s: %d a second", g.name, rate)
		pace := Pace{rate, max(2, int(b.window.Seconds()*float64(rate)))}
		var sids []string
		for k := range pace.Events {
			sids = append(sids, sidOf(seen+k+1))
		}
		if err := all(readers, "Watch", same(slices.Collect(taking(sids, every(rate)))), nothing); err != nil {
			return err
		}
		var sent []int64
		l, err := b.timed(pid, pace, func() error { return server.do("Run", pace, &sent) })
		if err != nil {
			return err
		}
		seen += pace.Events
		sent = slices.Collect(taking(sent, every(rate)))
		times, err := gather[[]int64](readers, "Watched", None{})
		if err != nil {
			return err
		}
		g.add(l, sent, sent, times, b.verifiers)
	}
	b.progress("%s: cut", g.name)
	cut := mono()
	if err := all(readers, "Cut", noArgs, nothing); err != nil {
		return err
	}
	back, err := gather[int64](readers, "Back", None{})
	if err != nil {
		return err
	}
	g.cuts = append(g.cuts, namedSpread{"all connections cut, then back without waiting", since(cut, back)})
	b.groups = append(b.groups, g)
	return nil
}

func mode(secure bool) string {
	if secure {
		return "TLS"
	}
	return "plain"
}

// rest lets everything come to rest, and notes what connections take then.
func (b *bench) rest(ctx context.Context, g *group, pid int, before int64) error {
	b.progress("%s: at rest", g.name)
	time.Sleep(min(b.window, 3*time.Second))
	after, _, err := stage.Memory(pid)
	if err != nil {
		return err
	}
	g.memory = float64(after-before) / float64(b.verifiers)
	used, err := stage.CPUTime(pid)
	if err != nil {
		return err
	}
	pause := min(b.window, 2*time.Second)
	start := mono()
	time.Sleep(pause)
	later, err := stage.CPUTime(pid)
	g.idle = float64(later[pid]-used[pid]) / float64(mono()-start)
	return errors.Join(err, ctx.Err())
}

// timed measures the processor time that goes while run runs.
func (b *bench) timed(pid int, pace Pace, run func() error) (l lag, err error) {
	l = lag{rate: pace.Rate, events: pace.Events}
	used, err := stage.CPUTime(pid)
	if err != nil {
		return l, err
	}
	start := mono()
	if err := run(); err != nil {
		return l, err
	}
	later, err := stage.CPUTime(pid)
	l.processors = float64(later[pid]-used[pid]) / float64(mono()-start)
	return l, err
}

// add reckons how long it took until the last, and until each.
func (g *group) add(l lag, sent, answered []int64, times [][]int64, verifiers int) {
	var alls, returned, eachs []int64
	for n := range sent {
		last := int64(0)
		for _, of := range times {
			last = max(last, of[n])
			eachs = append(eachs, of[n]-sent[n])
		}
		alls = append(alls, last-sent[n])
		returned = append(returned, max(0, last-answered[n]))
	}
	l.taken = len(sent)
	l.all, l.returned, l.each = spreadOf(alls), spreadOf(returned), spreadOf(eachs)
	perEvent := (l.processors - g.idle) / float64(l.rate) / float64(verifiers)
	l.write = time.Duration(perEvent * float64(time.Second))
	g.lags = append(g.lags, l)
}

// onSQLite measures "counterfoil serve" on SQLite.
func (b *bench) onSQLite(ctx context.Context, secure bool, bare int) error {
	g := &group{name: "counterfoil on SQLite, " + mode(secure), secure: secure}
	n, err := b.serve(ctx, "sqlite:"+filepath.Join(b.dir, fmt.Sprint(mode(secure), bare, ".db")), secure)
	if err != nil {
		return err
	}
	err = b.counterfoil(ctx, g, n, n, bare)
	if err == nil && bare == 0 {
		err = b.cut(ctx, g, n)
	}
	return errors.Join(err, n.close())
}

// onPostgres measures two nodes: one revokes, the other tells.
func (b *bench) onPostgres(ctx context.Context) (err error) {
	g := &group{name: "counterfoil on PostgreSQL, plain, revoked at another node"}
	postgres, err := stage.StartPostgres(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, postgres.Stop()) }()
	url, err := postgres.Create(ctx, "counterfoil")
	if err != nil {
		return err
	}
	revoking, err := b.serve(ctx, url, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, revoking.close()) }()
	telling, err := b.serve(ctx, url, false)
	if err != nil {
		return err
	}
	revoking.postgres, telling.postgres = postgres, postgres
	err = b.counterfoil(ctx, g, revoking, telling, b.bare())
	return errors.Join(err, telling.close())
}

// counterfoil measures the lag at verifiers that follow one node while
// sessions are revoked at another, or the same.
func (b *bench) counterfoil(ctx context.Context, g *group, revoking, telling *node, bare int) error {
	tokens, _, err := revoking.sessions(ctx, 2)
	if err != nil {
		return err
	}
	before, _, err := stage.Memory(telling.PID)
	if err != nil {
		return err
	}
	f := telling.following()
	if telling.readers, err = start("listeners", 1, bare, f); err != nil {
		return err
	}
	f.Token = tokens[0]
	if telling.holders, err = start("verifiers", b.processes, b.verifiers-bare, f); err != nil {
		return err
	}
	if bare > 0 {
		g.name += fmt.Sprintf("; %d verifiers and %d bare readers", b.verifiers-bare, bare)
	}
	if err := b.rest(ctx, g, telling.PID, before); err != nil {
		return err
	}
	ages, err := gather[int64](telling.holders, "Ages", b.window/2)
	if err != nil {
		return err
	}
	g.ages = spreadOf(ages)
	for _, rate := range b.rates {
		if bare == 0 && rate > mostApplied {
			continue
		}
		b.progress("%s: %d a second", g.name, rate)
		if err := b.revokeAt(ctx, g, revoking, telling, rate); err != nil {
			return err
		}
	}
	b.groups = append(b.groups, g)
	return nil
}

func (b *bench) revokeAt(ctx context.Context, g *group, revoking, telling *node, rate int) error {
	pace := Pace{rate, max(2, int(b.window.Seconds()*float64(rate)))}
	tokens, sids, err := revoking.sessions(ctx, pace.Events+2)
	if err != nil {
		return err
	}
	good, tokens, sids := tokens[:2], tokens[2:], sids[2:]
	watching := append(slices.Clone(telling.holders), telling.readers...)
	if err := all(watching, "Watch", same(slices.Collect(taking(sids, every(rate)))), nothing); err != nil {
		return err
	}
	profiled := telling.startProfile(ctx, b, rate)
	busy, err := stage.Busy()
	if err != nil {
		return err
	}
	ours, err := b.used(watching, revoking, telling)
	if err != nil {
		return err
	}
	held, err := b.used(telling.holders)
	if err != nil {
		return err
	}
	start := mono()
	var sent, answered []int64
	l, err := b.timed(telling.PID, pace, func() (err error) {
		sent, answered, err = revoking.revoke(ctx, sids, pace)
		return err
	})
	if err != nil {
		return err
	}
	oursThen, err := b.used(watching, revoking, telling)
	if err != nil {
		return err
	}
	busyThen, err := stage.Busy()
	if err != nil {
		return err
	}
	heldThen, err := b.used(telling.holders)
	if err != nil {
		return err
	}
	l.holders = float64(heldThen-held) / float64(mono()-start)
	l.others = max(0, float64((busyThen-busy)-(oursThen-ours))/float64(mono()-start))
	times, err := gather[[]int64](watching, "Watched", None{})
	if err != nil {
		return err
	}
	g.add(l, slices.Collect(taking(sent, every(rate))), slices.Collect(taking(answered, every(rate))), times, b.verifiers)
	// Not only the watches say so: no revoked token is taken, no good one refused.
	wrong, err := telling.check(Checking{Good: good, Revoked: []string{tokens[0], tokens[(len(tokens)-1)/every(rate)*every(rate)]}})
	if err == nil && wrong > 0 {
		err = fmt.Errorf("%d wrong answers about tokens", wrong)
	}
	return errors.Join(err, <-profiled)
}

// used is the processor time of processes, and with nodes, of those and of this
// program, which revokes at them.
func (b *bench) used(holders []*role, nodes ...*node) (sum time.Duration, err error) {
	var pids []int
	for _, h := range holders {
		pids = append(pids, h.cmd.Process.Pid)
	}
	for _, n := range nodes {
		pids = append(pids, n.PID, os.Getpid())
		if n.postgres != nil {
			children, err := n.postgres.PIDs()
			if err != nil {
				return 0, err
			}
			pids = append(pids, children...)
		}
	}
	used, err := stage.CPUTime(pids...)
	for _, t := range used { // a process that is named twice counts once
		sum += t
	}
	return sum, err
}

const (
	// alarm is the age at which a feed that beats every 100 ms counts as cut off.
	alarm = 300 * time.Millisecond
)

// cut measures what follows when the server stands still, and when it is
// started again.
func (b *bench) cut(ctx context.Context, g *group, n *node) error {
	b.progress("%s: stopped in its tracks", g.name)
	if err := unix.Kill(n.PID, unix.SIGSTOP); err != nil {
		return err
	}
	at := mono()
	noticed, err := gather[int64](n.holders, "Older", alarm)
	if err = errors.Join(err, unix.Kill(n.PID, unix.SIGCONT)); err != nil {
		return err
	}
	g.cuts = append(g.cuts, namedSpread{"stopped in its tracks: older than 300 ms", since(at, noticed)})
	time.Sleep(time.Second)
	for _, kind := range []struct {
		name   string
		signal unix.Signal
	}{{"killed", unix.SIGKILL}, {"ended and started again", unix.SIGTERM}} {
		b.progress("%s: %s", g.name, kind.name)
		if err := all(n.holders, "Mark", noArgs, nothing); err != nil {
			return err
		}
		at = mono()
		if err := n.restart(ctx, b, kind.signal); err != nil {
			return err
		}
		ready := mono()
		back, err := gather[int64](n.holders, "Back", None{})
		if err != nil {
			return err
		}
		g.cuts = append(g.cuts,
			namedSpread{kind.name + ": back since then", since(at, back)},
			namedSpread{fmt.Sprintf("%s: back since it was ready, %d ms later", kind.name, (ready-at)/1e6), since(ready, back)})
		time.Sleep(min(6*time.Second, b.window)) // the streams count as good ones then
	}
	return nil
}
