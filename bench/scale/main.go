// Command scale reckons from measured unit costs what a large installation
// takes: nodes, database or shards, bandwidth of the feed, relays, memory, and
// which part of each design is full first. It measures nothing itself.
//
//	go -C bench run ./scale
//	go -C bench run ./scale -users 5e6 -sessions 2e6 -verifiers 200
//
// docs/scale.md holds what it prints without flags; a test keeps it so.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// size is what is asked for.
type size struct {
	users, sessions float64 // sessions: active at a time
	verifiers       float64 // processes
	perHost         float64 // of these on a host
	regions         float64
	signOuts        float64 // a user and day; as many sign-ins
	peak            float64 // how much more than the average there is at the worst time of day
	cores           float64 // of a machine
	streams         float64 // that follow one relay
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	s := size{}
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	flags.Float64Var(&s.users, "users", 1e9, "users")
	flags.Float64Var(&s.sessions, "sessions", 1e8, "sessions that are active at a time, each refreshed when its token expires")
	flags.Float64Var(&s.verifiers, "verifiers", 50e3, "processes that verify")
	flags.Float64Var(&s.perHost, "per-host", 10, "of these on one host, behind one relay if there is one")
	flags.Float64Var(&s.regions, "regions", 4, "regions")
	flags.Float64Var(&s.signOuts, "sign-outs", 0.5, "sessions ended, a user and day; as many are started")
	flags.Float64Var(&s.peak, "peak", 3, "how many times the average there is at the worst time of day")
	flags.Float64Var(&s.cores, "cores", 32, "processors of a machine")
	flags.Float64Var(&s.streams, "streams", 1000, "that one relay of a region serves")
	if err := flags.Parse(args); err != nil {
		return err
	}
	for _, v := range []float64{s.users, s.sessions, s.verifiers, s.perHost, s.regions, s.signOuts, s.peak, s.cores, s.streams} {
		if !(v > 0) {
			return errors.New("every flag wants a number above 0")
		}
	}
	for i, t := range []table{s.load(), s.parts(), s.feed(), s.tree(), s.verifier(), s.limits(), s.light()} {
		if i > 0 {
			fmt.Fprintln(out)
		}
		t.print(out)
	}
	return nil
}
