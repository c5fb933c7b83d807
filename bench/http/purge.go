//go:build linux

package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/bench/internal/stage"
	"github.com/counterfoil/counterfoil/redisstore"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// place is where a store is: a file of SQLite, or a database of PostgreSQL and
// maybe a Redis.
type place struct{ file, sql, redis string }

// open makes the store; clock is its clock, nil the usual one.
func (p place) open(clock func() time.Time) (counterfoil.Store, func() error, error) {
	var options []sqlstore.Option
	if clock != nil {
		options = append(options, sqlstore.Clock(clock))
	}
	driver, dsn := "sqlite", sqlstore.SQLiteDSN(p.file)
	if p.file == "" {
		driver, dsn = "pgx", p.sql
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, nil, err
	}
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	closing := func(s counterfoil.Store) func() error {
		return func() error { return errors.Join(s.Close(), db.Close()) }
	}
	if p.file != "" {
		s := sqlstore.SQLite(db, options...)
		return s, closing(s), nil
	}
	s := sqlstore.PostgreSQL(db, options...)
	if p.redis == "" {
		return s, closing(s), nil
	}
	option, err := redisstore.ParseURL(p.redis)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	var more []redisstore.Option
	if clock != nil {
		more = append(more, redisstore.Clock(clock))
	}
	r := redisstore.New(s, option, more...)
	return r, closing(r), nil
}

// purged is what a purge of everything cost.
type purged struct {
	Sessions int
	Took     time.Duration
	Before   waits // of sign-ins into the store, without the purge
	During   waits
}

type waits struct {
	Rate     float64
	P50, P99 time.Duration
}

const (
	purgeClients = 16
	// purgeLate is how far ahead the clock is by which all sessions have expired.
	purgeLate = 60 * 24 * time.Hour
	// purgePace is how long each client has for a sign-in: SQLite purges while
	// nobody waits to write, which clients in a closed loop always do.
	purgePace = 32 * time.Millisecond
	// purgeLimit ends a purge that does not come to its end.
	purgeLimit = 2 * time.Minute
	// purgeChunk is how much an authority deletes by one call.
	purgeChunk = 200
)

// servePurge deletes everything, in a process of its own, and prints what it
// cost those who sign in meanwhile. args: file, SQL and Redis of a place.
func servePurge(args []string) error {
	p, err := purge(context.Background(), place{args[0], args[1], args[2]})
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(p)
	}
	if err == nil {
		os.Exit(0)
	}
	return err
}

func purge(ctx context.Context, at place) (p purged, err error) {
	clock := func() time.Time { return time.Now().Add(purgeLate) }
	store, closed, err := at.open(clock)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, closed()) }()
	if err := store.Open(ctx); err != nil {
		return p, err
	}
	sessions := store.Sessions()
	quiet, cancel := context.WithTimeout(ctx, 3*time.Second)
	p.Before, err = signIns(quiet, sessions, clock)
	cancel()
	if err != nil {
		return p, err
	}
	busy, cancel := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() {
		defer cancel()
		began := time.Now()
		for {
			n, err := sessions.Purge(ctx, clock(), purgeChunk)
			p.Sessions += n
			if err != nil || n < purgeChunk || time.Since(began) > purgeLimit {
				p.Took = time.Since(began)
				failed <- err
				return
			}
		}
	}()
	p.During, err = signIns(busy, sessions, clock)
	return p, errors.Join(err, <-failed)
}

// signIns inserts sessions until ctx ends, 500 a second.
func signIns(ctx context.Context, sessions counterfoil.SessionStore, clock func() time.Time) (w waits, err error) {
	var mu sync.Mutex
	var took []time.Duration
	var all sync.WaitGroup
	began := time.Now()
	for client := range purgeClients {
		all.Go(func() {
			var own []time.Duration
			var failed error
			for n := 0; ctx.Err() == nil && failed == nil; n++ {
				start := time.Now()
				// Not with ctx: what is under way at the end is to be counted.
				_, failed = sessions.Insert(context.WithoutCancel(ctx), newSession(fmt.Sprintf("fresh-%d-%d", client, n%1000), clock()))
				own = append(own, time.Since(start))
				time.Sleep(time.Until(start.Add(purgePace)))
			}
			mu.Lock()
			defer mu.Unlock()
			took, err = append(took, own...), errors.Join(err, failed)
		})
	}
	all.Wait()
	slices.Sort(took)
	w.Rate = float64(len(took)) / time.Since(began).Seconds()
	w.P50, w.P99 = took[len(took)/2], took[len(took)*99/100]
	return w, err
}

// runPurge has a process of its own purge a place, whose syncs take longer by
// delay where it is a file.
func runPurge(ctx context.Context, at place, delay time.Duration) (p purged, err error) {
	if at.file == "" {
		delay = 0 // the server's to have
	}
	command, err := stage.SlowSync(delay)
	if err != nil {
		return p, err
	}
	self, err := os.Executable()
	if err != nil {
		return p, err
	}
	command = append(command, self, "purge", at.file, at.sql, at.redis)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return p, fmt.Errorf("purge: %w", err)
	}
	return p, json.Unmarshal(out, &p)
}

// purges purges what is loaded and prints the table.
func (b *bench) purges(ctx context.Context, out io.Writer) error {
	fmt.Fprintf(out, "\n| store | sessions purged | took | sign-ins/s before, during | p50, p99 ms before | during |\n|---|---:|---:|---:|---:|---:|\n")
	done := map[*data]bool{}
	for _, c := range b.contenders {
		if c.data == nil || done[c.data] || c.data.place == (place{}) {
			continue
		}
		done[c.data] = true
		p, err := runPurge(ctx, c.data.place, b.sync)
		if err != nil {
			return fmt.Errorf("%s: %w", c.store, err)
		}
		fmt.Fprintf(out, "| %s | %d | %.1f s, %.0f/s | %.0f, %.0f | %.2f, %.2f | %.2f, %.2f |\n", c.store, p.Sessions, p.Took.Seconds(),
			float64(p.Sessions)/p.Took.Seconds(), p.Before.Rate, p.During.Rate,
			microseconds(p.Before.P50)/1000, microseconds(p.Before.P99)/1000, microseconds(p.During.P50)/1000, microseconds(p.During.P99)/1000)
	}
	return nil
}
