//go:build linux

// Command http measures the calls of "counterfoil serve" over HTTP, as ratios
// to a bare net/http handler in the same run: refresh, live check, sign-in
// without a password hash, revocation of one session and of a user's, on SQLite,
// PostgreSQL and Redis, of one node and two. Beside them it measures what one
// would write by hand: alexedwards/scs on PostgreSQL and on Redis with golang-jwt,
// and what a driver's bare round trip costs.
//
//	go -C bench run ./http
//	go -C bench run ./http -stores sqlite -rounds 5 -time 2s
//	go -C bench run ./http -sync 1ms            (a disk that is not a cache)
//	go -C bench run ./http -profile tmp         (CPU profiles, for go tool pprof)
//	go -C bench run ./http -stores sqlite,postgres,redis -nodes 1,2 -loaded 10000,1000000 -purge
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
	loaded      []int // sessions that lie there beside, one number after the other
	nodes       []int
	purge       bool
	limit       time.Duration
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
var roles = map[string]func(args []string) error{"ceiling": serveCeiling, "scs": serveHybrid, "floor": serveFloor, "purge": servePurge}

const (
	onSQLite   = "sqlite"
	onPostgres = "postgres"
	onRedis    = "redis"
)

func parse(args []string) (settings, error) {
	s := settings{}
	flags := flag.NewFlagSet("http", flag.ExitOnError)
	stores := flags.String("stores", "sqlite,postgres", "which stores, by comma")
	connections := flags.String("connections", "16,64", "connections at once, by comma")
	loaded := flags.String("loaded", "0", "sessions loaded beside the live ones; several by comma, growing: all but the last are measured at the first number of connections only")
	nodes := flags.String("nodes", "1", "numbers of counterfoil's nodes, by comma (more than one: not on SQLite)")
	flags.BoolVar(&s.peer, "peer", true, "measure the hybrid by hand and the bare round trip too (PostgreSQL, Redis)")
	flags.BoolVar(&s.purge, "purge", false, "delete what was loaded in the end, and measure sign-ins meanwhile")
	flags.DurationVar(&s.limit, "limit", 0, "begin no measurement after this time (0: no limit)")
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
		if store != onSQLite && store != onPostgres && store != onRedis {
			return s, fmt.Errorf("-stores: %q is not %s, %s or %s", store, onSQLite, onPostgres, onRedis)
		}
	}
	var err error
	if s.calls, err = regexp.Compile(*calls); err != nil {
		return s, fmt.Errorf("-calls: %w", err)
	}
	for _, list := range []struct {
		flag, text string
		least      int
		into       *[]int
	}{{"connections", *connections, 1, &s.connections}, {"loaded", *loaded, 0, &s.loaded}, {"nodes", *nodes, 1, &s.nodes}} {
		for text := range strings.SplitSeq(list.text, ",") {
			n, err := strconv.Atoi(text)
			if err != nil || n < list.least {
				return s, fmt.Errorf("-%s: %q is not a number of at least %d", list.flag, text, list.least)
			}
			*list.into = append(*list.into, n)
		}
	}
	if !slices.IsSorted(s.loaded) {
		return s, errors.New("-loaded: the numbers must grow")
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
	g := &grounds{settings: s, dir: dir}
	defer func() { err = errors.Join(err, g.stop()) }()
	began := time.Now()
	ceiling, err := startRole(ctx, "ceiling")
	if err != nil {
		return err
	}
	g.stores = append(g.stores, ceiling.Stop)
	if g.binary, err = stage.Build(ctx, dir, s.profile != ""); err != nil {
		return err
	}
	for _, store := range s.stores {
		if err := g.start(ctx, store); err != nil {
			return fmt.Errorf("start %s: %w", store, err)
		}
	}
	for _, c := range g.contenders {
		c.calls = slices.DeleteFunc(c.calls, func(k *call) bool { return !s.calls.MatchString(k.name) })
	}
	b := &bench{settings: s, ceiling: ceiling, contenders: g.contenders, began: began}
	if err := b.measure(ctx); err != nil {
		return err
	}
	b.report(out)
	if !s.purge {
		return nil
	}
	if err := g.stopServers(); err != nil {
		return err
	}
	return b.purges(ctx, out)
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
