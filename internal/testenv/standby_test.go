//go:build unix

package testenv

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// What was committed is on a standby once it is promoted, though the primary
// was killed; with a synchronous one without waiting for it.
func TestStartStandby(t *testing.T) {
	bin, parent := postgresBin(t)
	ctx := t.Context()
	primary, err := StartPostgres(ctx, bin, parent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := primary.Stop(); err != nil {
			t.Error(err)
		}
	})
	run(t, primary, `CREATE TABLE things (n integer)`)
	standby, err := StartStandby(ctx, primary, parent, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := standby.await(ctx, `SELECT pg_is_in_recovery()`); err != nil {
		t.Fatal(err)
	}
	run(t, primary, `INSERT INTO things VALUES (1)`)
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if conn, err := pgx.Connect(ctx, primary.URL); err == nil {
		_ = conn.Close(ctx)
		t.Error("a server that was killed takes connections")
	}
	if err := standby.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	if err := standby.await(ctx, `SELECT count(*) = 1 FROM things`); err != nil {
		t.Error(err)
	}
	run(t, standby, `INSERT INTO things VALUES (2)`) // it waits for nobody

	if err := primary.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := primary.Restart(ctx); err == nil {
		t.Error("a server that runs was started again")
	}
	if err := primary.Pause(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if conn, err := pgx.Connect(short, primary.URL); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that was paused: %v, %v", conn, err)
	}
	if err := primary.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := primary.await(ctx, `SELECT true`); err != nil {
		t.Error(err)
	}
}

func run(t *testing.T, p *Postgres, query string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), query)
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
}
