//go:build linux

package faults

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

var databases atomic.Int64

// newDatabase makes a database on the server that the tests share. Tests that
// stop their server start one of their own.
func newDatabase(t *testing.T) string {
	t.Helper()
	server := need(t, testenv.PostgresURL)
	name := fmt.Sprintf("faults_%d_%d", time.Now().UnixNano(), databases.Add(1))
	db, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := db.ExecContext(context.WithoutCancel(t.Context()), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	u := parse(t, server)
	u.Path = "/" + name
	return u.String()
}

// startPostgres starts a server that the test may kill.
func startPostgres(t *testing.T, parent string) *testenv.Postgres {
	t.Helper()
	pg, err := testenv.StartPostgres(t.Context(), need(t, testenv.PostgresBin), parent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	})
	return pg
}

func parse(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// through returns the address with another host and port.
func through(t *testing.T, address string, p *proxy) string {
	t.Helper()
	u := parse(t, address)
	u.Host = p.addr()
	return u.String()
}

// between puts a proxy before the server at the address.
func between(t *testing.T, address string) (*proxy, string) {
	t.Helper()
	p := newProxy(t, parse(t, address).Host)
	return p, through(t, address, p)
}
