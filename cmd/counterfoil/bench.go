package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"
)

func benchCommand() *command {
	return &command{
		name:  "bench",
		short: "Measure this machine: verify, refresh, live check, revoke",
		long: `Starts an authority on SQLite in a temporary folder, and verifiers that follow
its feed over HTTP on the loopback interface, all in this process. It measures
what a token costs to verify, how fast refreshes and live checks are, and how
long it takes from a revocation until each verifier refuses the token.

It touches no other database and leaves nothing behind. Whatever else the
machine does shows in the numbers.`,
		examples: []string{"counterfoil bench", "counterfoil bench --verifiers 500", "counterfoil bench --json"},
		setup: func(a *app, f *flags) func(context.Context, []string) error {
			s := newBenchFlags(f)
			return func(ctx context.Context, args []string) error {
				if err := noArgs(args); err != nil {
					return err
				}
				return s.run(ctx, a)
			}
		},
	}
}

const (
	mostVerifiers   = 1000
	mostRevocations = 10000
	longestBench    = time.Minute
	// revokeFor bounds the revocations where nobody has said how many.
	revokeFor = 6 * time.Second
)

type benchFlags struct {
	flags                  *flags
	verifiers, revocations intValue
	duration               durationValue
	json                   *boolValue
}

func newBenchFlags(f *flags) *benchFlags {
	s := &benchFlags{flags: f, verifiers: 100, revocations: 50, duration: durationValue(2 * time.Second)}
	f.add(&s.verifiers, "verifiers", "N", "how many follow the feed")
	f.add(&s.revocations, "revocations", "N", "how many sessions are revoked, one after the other; fewer within 6 s when left out")
	f.add(&s.duration, "duration", "DURATION", "of each of the other four measurements, up to a minute")
	s.json = jsonFlag(f)
	return s
}

func (s *benchFlags) run(ctx context.Context, a *app) error {
	duration := time.Duration(s.duration)
	switch {
	case s.verifiers < 1 || s.verifiers > mostVerifiers:
		return usagef("--verifiers %d: want 1 to %d", s.verifiers, mostVerifiers)
	case s.revocations < 1 || s.revocations > mostRevocations:
		return usagef("--revocations %d: want 1 to %d", s.revocations, mostRevocations)
	case duration < time.Millisecond || duration > longestBench:
		return usagef("--duration %s: want 1ms to 1m", &s.duration)
	}
	plan := benchPlan{verifiers: int(s.verifiers), revocations: int(s.revocations), duration: duration}
	if !s.flags.has("revocations") {
		plan.revokeFor = revokeFor
	}
	progress := newProgress(a)
	report, err := measure(ctx, plan, progress.show)
	progress.clear()
	if err != nil {
		if ctx.Err() != nil {
			return errors.New("bench: interrupted")
		}
		return fmt.Errorf("bench: %w", err)
	}
	p := newPrinter(a)
	if *s.json {
		return p.json(report)
	}
	report.print(p)
	return nil
}

// benchReport is what was measured. Times are in nanoseconds.
type benchReport struct {
	Machine      benchMachine `json:"machine"`
	VerifyCold   benchCost    `json:"verify_cold"`
	VerifyWarm   benchCost    `json:"verify_warm"`
	Refresh      benchRate    `json:"refresh"`
	LiveCheck    benchRate    `json:"live_check"`
	Revoke       benchSpread  `json:"revoke_to_refused"`
	DurationSecs float64      `json:"took_seconds"`
}

type benchMachine struct {
	Platform string `json:"platform"`
	CPUs     int    `json:"cpus"`
	Go       string `json:"go"`
	Version  string `json:"version"`
	Store    string `json:"store"`
}

// benchCost is the mean of calls made one after the other.
type benchCost struct {
	Mean float64 `json:"mean_ns"`
	N    int     `json:"n"`
}

// benchRate is what several connections got at once.
type benchRate struct {
	PerSecond   float64 `json:"per_second"`
	Connections int     `json:"connections"`
	benchTimes
}

// benchSpread is over all revocations and all verifiers.
type benchSpread struct {
	Verifiers   int `json:"verifiers"`
	Revocations int `json:"revocations"`
	benchTimes
}

type benchTimes struct {
	N     int           `json:"n"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	Worst time.Duration `json:"worst_ns"`
}

func thisMachine() benchMachine {
	b := readBuild()
	return benchMachine{Platform: b.Platform, CPUs: runtime.GOMAXPROCS(0), Go: b.Go, Version: b.Version, Store: "SQLite, in a temporary folder"}
}

func (r *benchReport) print(p *printer) {
	cost := func(what string, c benchCost, note string) []cell {
		return []cell{text(what), text(shortTime(time.Duration(c.Mean))), {}, {}, text(perSecond(1e9 / c.Mean)), text(note)}
	}
	rate := func(what string, c benchRate) []cell {
		return []cell{text(what), text(shortTime(c.P50)), text(shortTime(c.P99)), text(shortTime(c.Worst)), text(perSecond(c.PerSecond)),
			text(fmt.Sprintf("over HTTP, %d connections", c.Connections))}
	}
	p.table([][]cell{
		{text("WHAT"), text("TYPICAL"), text("P99"), text("WORST"), text("PER SECOND"), text("HOW")},
		cost("verify, token not seen before", r.VerifyCold, "one core: signature, claims, revocations"),
		cost("verify, token seen before", r.VerifyWarm, "one core: lookup, revocations"),
		rate("refresh", r.Refresh),
		rate("live check", r.LiveCheck),
		{text("revoke until refused"), text(shortTime(r.Revoke.P50)), text(shortTime(r.Revoke.P99)), text(shortTime(r.Revoke.Worst)), {},
			text(fmt.Sprintf("%d revocations at %d verifiers, over the feed", r.Revoke.Revocations, r.Revoke.Verifiers))},
	})
	p.printf("\nTypical is the median, of verify the mean. %s, %d CPUs, %s; all of it in one process. Store: %s.\n",
		r.Machine.Platform, r.Machine.CPUs, r.Machine.Go, r.Machine.Store)
}

// shortTime writes a time with three digits or so.
func shortTime(d time.Duration) string {
	switch {
	case d < time.Microsecond:
		return strconv.FormatInt(int64(d), 10) + " ns"
	case d < time.Millisecond:
		return digits(float64(d)/1e3) + " µs"
	case d < time.Second:
		return digits(float64(d)/1e6) + " ms"
	}
	return digits(d.Seconds()) + " s"
}

func digits(x float64) string {
	if x < 10 {
		return strconv.FormatFloat(x, 'f', 2, 64)
	}
	if x < 100 {
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'f', 0, 64)
}

func perSecond(x float64) string {
	switch {
	case x >= 1e6:
		return digits(x/1e6) + " million"
	case x >= 1e4:
		return digits(x/1e3) + " thousand"
	}
	return strconv.FormatFloat(x, 'f', 0, 64)
}

// progress tells on a terminal what is being done, on one line.
type progress struct{ a *app }

func newProgress(a *app) progress {
	if term, _ := a.lookupEnv("TERM"); term == "dumb" || !isTerminal(a.stderr) {
		return progress{}
	}
	return progress{a}
}

func (p progress) show(text string) {
	if p.a != nil {
		fmt.Fprintf(p.a.stderr, "\r\x1b[K%s …", text)
	}
}

func (p progress) clear() {
	if p.a != nil {
		fmt.Fprint(p.a.stderr, "\r\x1b[K")
	}
}
