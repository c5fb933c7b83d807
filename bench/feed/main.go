//go:build linux

// Command feed measures the feed of revocations of "counterfoil serve": how
// long it takes from a revocation until all of a thousand verifiers refuse the
// session, what that costs, how old verifiers say their feed is, and how soon
// all are back after a restart. Beside it stands the floor in the same run: a
// bare server of server-sent events with as many bare readers.
//
//	go -C bench run ./feed
//	go -C bench run ./feed -rates 100 -time 5s -postgres=false
//	go -C bench run ./feed -relays 0,1,2,3 -modes none -postgres=false  (behind relays)
//	go -C bench run ./feed -profile tmp         (CPU profiles, for go tool pprof)
//
// Everything runs on this machine, over loopback. The server, the floor and the
// processes that hold the verifiers have one processor each; clocks are
// compared across processes by CLOCK_MONOTONIC, which they share. On a machine
// that others use, run the built program with a better priority: nice -n -15.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// settings are the flags.
type settings struct {
	verifiers int
	processes int // that hold them
	serverUse int // processors of the server
	rates     []int
	window    time.Duration // of one measurement
	tls       []bool
	postgres  bool
	relays    []int  // also measure behind so many
	profile   string // folder
}

func main() {
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		if err := serveRole(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, os.Args[1]+":", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := parse(os.Args[1:])
	if err == nil {
		err = run(ctx, s, os.Stdout)
	}
	if err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "feed:", err)
		os.Exit(1)
	}
}

func parse(args []string) (settings, error) {
	s := settings{}
	flags := flag.NewFlagSet("feed", flag.ExitOnError)
	flags.IntVar(&s.verifiers, "verifiers", 1000, "how many follow the feed")
	flags.IntVar(&s.processes, "processes", 1, "how many processes hold them")
	flags.IntVar(&s.serverUse, "processors", 1, "how many processors the server may run on")
	rates := flags.String("rates", "1,100,1000", "revocations a second, by comma")
	flags.DurationVar(&s.window, "time", 8*time.Second, "length of one measurement")
	modes := flags.String("modes", "plain,tls", "how verifiers connect, by comma; none measures behind relays only")
	relays := flags.String("relays", "", "measure behind so many relays too, by comma")
	flags.BoolVar(&s.postgres, "postgres", true, "measure through PostgreSQL and a second node too")
	flags.StringVar(&s.profile, "profile", "", "folder for CPU profiles of the server; the times then mean little")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	for text := range strings.SplitSeq(*rates, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 10_000 {
			return s, fmt.Errorf("-rates: %q is not a number of revocations a second from 1 to 10000", text)
		}
		s.rates = append(s.rates, n)
	}
	for text := range strings.SplitSeq(*relays, ",") {
		n, err := strconv.Atoi(text)
		if *relays != "" && (err != nil || n < 0 || n > 9) {
			return s, fmt.Errorf("-relays: %q is not a number from 0 to 9", text)
		}
		if *relays != "" {
			s.relays = append(s.relays, n)
		}
	}
	for mode := range strings.SplitSeq(*modes, ",") {
		if *modes == "none" {
			break
		}
		if mode != "plain" && mode != "tls" {
			return s, fmt.Errorf("-modes: %q is not plain or tls", mode)
		}
		s.tls = append(s.tls, mode == "tls")
	}
	if s.verifiers < 1 || s.serverUse < 1 || s.processes < 1 || s.processes > s.verifiers || s.window < 10*time.Millisecond || s.window > 5*time.Minute {
		return s, errors.New("-verifiers and -processors must be above zero, -processes no more than those, -time 10ms to 5m")
	}
	return s, s.checkFiles()
}

// checkFiles looks whether processes may have enough connections.
func (s *settings) checkFiles() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	// While verifiers start, each has one for the feed and one for keys.
	need := uint64(2*s.verifiers + 200)
	if limit.Max < need {
		return fmt.Errorf("%d verifiers need %d open files in a process, and the limit is %d: raise it (ulimit -Hn %d), or take fewer -verifiers",
			s.verifiers, need, limit.Max, need)
	}
	return nil
}

func run(ctx context.Context, s settings, out io.Writer) error {
	dir, err := os.MkdirTemp("", "counterfoil-bench-")
	if err != nil {
		return err
	}
	b := &bench{settings: s, dir: dir}
	err = b.measure(ctx)
	if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
		return err
	}
	b.report(out)
	return nil
}
