//go:build linux

// Command footprint measures what "counterfoil serve" takes: the size of its
// binary, the time from its start to its first good answer, and its memory
// idle and under load, on SQLite and PostgreSQL.
//
//	go -C bench run ./footprint
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/counterfoil/counterfoil/bench/internal/load"
	"github.com/counterfoil/counterfoil/bench/internal/stage"
)

// settings are the flags.
type settings struct {
	postgres    bool
	starts      int
	rest        time.Duration // before memory counts as idle
	window      time.Duration // of each kind of load
	connections int
	sessions    int
}

func main() {
	s := settings{}
	flag.BoolVar(&s.postgres, "postgres", true, "measure on PostgreSQL too")
	flag.IntVar(&s.starts, "starts", 9, "starts on a database that is there already")
	flag.DurationVar(&s.rest, "rest", 2*time.Second, "how long to rest before memory counts as idle")
	flag.DurationVar(&s.window, "time", 3*time.Second, "length of each kind of load")
	flag.IntVar(&s.connections, "connections", 64, "connections under load")
	flag.IntVar(&s.sessions, "sessions", 1000, "live sessions")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s, os.Stdout); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "footprint:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "counterfoil-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary, err := stage.Build(ctx, dir, false)
	if err != nil {
		return err
	}
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Binary, stripped: %.1f MB\n\n", megabytes(info.Size()))
	fmt.Fprintln(out, "| store | start to first good answer, new database | existing: median (least–most) | memory idle | most under load |")
	fmt.Fprintln(out, "|---|---:|---:|---:|---:|")
	if err := s.measure(ctx, out, binary, "SQLite", "sqlite:"+filepath.Join(dir, "bench.db")); err != nil || !s.postgres {
		return err
	}
	postgres, err := stage.StartPostgres(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, postgres.Stop()) }()
	url, err := postgres.Create(ctx, "counterfoil")
	if err != nil {
		return err
	}
	return s.measure(ctx, out, binary, "PostgreSQL", url)
}

func (s settings) measure(ctx context.Context, out io.Writer, binary, store, database string) error {
	server, err := stage.Serve(ctx, binary, database, stage.ServeOptions{})
	if err != nil {
		return err
	}
	fresh := server.Started
	var starts []time.Duration
	for range s.starts {
		if err := server.Stop(); err != nil {
			return err
		}
		if server, err = stage.Serve(ctx, binary, database, stage.ServeOptions{}); err != nil {
			return err
		}
		starts = append(starts, server.Started)
	}
	idle, peak, err := s.memory(ctx, server)
	if err := errors.Join(err, server.Stop()); err != nil {
		return err
	}
	slices.Sort(starts)
	fmt.Fprintf(out, "| %s | %.0f ms | %.0f ms (%.0f–%.0f) | %.1f MB | %.1f MB |\n", store, milliseconds(fresh),
		milliseconds(starts[len(starts)/2]), milliseconds(starts[0]), milliseconds(starts[len(starts)-1]), megabytes(idle), megabytes(peak))
	return nil
}

// memory is that of a server just started, and its most under load.
func (s settings) memory(ctx context.Context, server *stage.Counterfoil) (idle, peak int64, err error) {
	select {
	case <-time.After(s.rest):
	case <-ctx.Done():
		return 0, 0, context.Cause(ctx)
	}
	if idle, _, err = stage.Memory(server.PID); err != nil {
		return 0, 0, err
	}
	signIns, tokens, err := server.Start(ctx, s.sessions)
	if err != nil {
		return 0, 0, err
	}
	var refresh, session [][]byte
	for _, token := range tokens {
		refresh = append(refresh, server.Refresh(token))
		session = append(session, server.Session(token))
	}
	for _, kind := range []struct {
		requests [][]byte
		status   int
	}{{signIns, http.StatusCreated}, {refresh, http.StatusOK}, {session, http.StatusOK}} {
		_, err := load.Run(ctx, load.Plan{Address: server.Address, Connections: s.connections, Duration: s.window,
			Next: load.Repeat(kind.requests), Status: kind.status})
		if err != nil {
			return 0, 0, err
		}
	}
	_, peak, err = stage.Memory(server.PID)
	return idle, peak, err
}

func megabytes(n int64) float64 { return float64(n) / (1 << 20) }

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
