//go:build linux

// Command http measures the calls of "counterfoil serve" over HTTP, as ratios
// to a bare net/http handler in the same run: refresh, live check, sign-in
// without a password hash, and revocation, on SQLite and PostgreSQL. Beside
// them it measures what one would write by hand: alexedwards/scs on PostgreSQL
// with golang-jwt.
//
//	go -C bench run ./http
//	go -C bench run ./http -stores sqlite -rounds 5 -time 2s
//	go -C bench run ./http -sync 1ms            (a disk that is not a cache)
//	go -C bench run ./http -profile tmp         (CPU profiles, for go tool pprof)
//
// Everything runs on this machine: the servers, PostgreSQL, and the load in
// this process. Each measurement has one of the ceiling just before it; the
// table shows medians over the rounds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/counterfoil/counterfoil/bench/internal/stage"
)

// settings are the flags.
type settings struct {
	stores      []string
	peer        bool
	calls       *regexp.Regexp
	connections []int
	rounds      int
	window      time.Duration // of one measurement
	patience    time.Duration // with a busy machine, before each
	sessions    int
	sync        time.Duration
	profile     string // folder
}

func main() {
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		fmt.Fprintln(os.Stderr, roles[os.Args[1]](os.Args[2:]))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := parse(os.Args[1:])
	if err == nil {
		err = run(ctx, s, os.Stdout)
	}
	if err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "http:", err)
		os.Exit(1)
	}
}

// roles are the servers that this program itself can be, in a process of its
// own. They return only when they fail.
var roles = map[string]func(args []string) error{"ceiling": serveCeiling, "scs": serveHybrid}

const (
	onSQLite   = "sqlite"
	onPostgres = "postgres"
)

func parse(args []string) (settings, error) {
	s := settings{}
	flags := flag.NewFlagSet("http", flag.ExitOnError)
	stores := flags.String("stores", "sqlite,postgres", "which stores, by comma")
	connections := flags.String("connections", "16,64", "connections at once, by comma")
	flags.BoolVar(&s.peer, "peer", true, "measure the hybrid by hand too (PostgreSQL)")
	calls := flags.String("calls", "", "only the calls whose names this matches (a regular expression; revoke needs sign-in)")
	flags.IntVar(&s.rounds, "rounds", 3, "measurements of each kind")
	flags.DurationVar(&s.window, "time", time.Second, "length of one measurement")
	flags.DurationVar(&s.patience, "patience", 0, "how long to wait for other programs to be quiet, before each measurement")
	flags.IntVar(&s.sessions, "sessions", 1000, "live sessions")
	flags.DurationVar(&s.sync, "sync", 0, "how much longer each sync to disk takes (needs strace)")
	flags.StringVar(&s.profile, "profile", "", "folder for CPU profiles of counterfoil; the ratios then mean little")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	s.stores = strings.Split(*stores, ",")
	for _, store := range s.stores {
		if store != onSQLite && store != onPostgres {
			return s, fmt.Errorf("-stores: %q is not %s or %s", store, onSQLite, onPostgres)
		}
	}
	var err error
	if s.calls, err = regexp.Compile(*calls); err != nil {
		return s, fmt.Errorf("-calls: %w", err)
	}
	for text := range strings.SplitSeq(*connections, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return s, fmt.Errorf("-connections: %q is not a number of connections", text)
		}
		s.connections = append(s.connections, n)
	}
	if s.rounds < 1 || s.sessions < 1 || s.window <= 0 {
		return s, errors.New("-rounds, -sessions and -time must be above zero")
	}
	return s, nil
}

// run starts everything, measures, and prints the table.
func run(ctx context.Context, s settings, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "counterfoil-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var stops []func() error
	defer func() {
		for _, stop := range slices.Backward(stops) {
			err = errors.Join(err, stop())
		}
	}()
	ceiling, err := startRole(ctx, "ceiling")
	if err != nil {
		return err
	}
	stops = append(stops, ceiling.Stop)
	binary, err := stage.Build(ctx, dir, s.profile != "")
	if err != nil {
		return err
	}

	var contenders []*contender
	if slices.Contains(s.stores, onSQLite) {
		c, stop, err := newCounterfoil(ctx, s, binary, onSQLite, "sqlite:"+filepath.Join(dir, "bench.db"), nil)
		if err != nil {
			return err
		}
		stops, contenders = append(stops, stop), append(contenders, c)
	}
	if slices.Contains(s.stores, onPostgres) {
		postgres, err := stage.StartPostgres(ctx, s.sync)
		if err != nil {
			return err
		}
		stops = append(stops, postgres.Stop)
		url, err := postgres.Create(ctx, counterfoilDatabase)
		if err != nil {
			return err
		}
		c, stop, err := newCounterfoil(ctx, s, binary, onPostgres, url, postgres)
		if err != nil {
			return err
		}
		stops, contenders = append(stops, stop), append(contenders, c)
		if s.peer {
			c, stop, err := newHybrid(ctx, s, postgres)
			if err != nil {
				return err
			}
			stops, contenders = append(stops, stop), append(contenders, c)
		}
	}
	for _, c := range contenders {
		c.calls = slices.DeleteFunc(c.calls, func(k *call) bool { return !s.calls.MatchString(k.name) })
	}
	b := &bench{settings: s, ceiling: ceiling, contenders: contenders}
	if err := b.measure(ctx); err != nil {
		return err
	}
	b.report(out)
	return nil
}

// startRole starts this program again as one of its servers.
func startRole(ctx context.Context, role string, args ...string) (*stage.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	address, err := stage.FreeAddress()
	if err != nil {
		return nil, err
	}
	return stage.Start(ctx, address, "/", nil, append([]string{self, role, address}, args...)...)
}
