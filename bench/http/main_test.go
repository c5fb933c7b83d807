//go:build linux

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

// As a server: what startRole starts is this test binary.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		main()
	}
	os.Exit(m.Run())
}

// The whole program once, too short to say anything about speed.
func TestRun(t *testing.T) {
	s, err := parse([]string{"-stores", onSQLite, "-connections", "2", "-rounds", "1", "-time", "40ms", "-sessions", "20", "-nodes", "1,2", "-loaded", "100,400", "-purge"})
	if err != nil {
		t.Fatal(err)
	}
	wanted := []string{"refresh", "live check, GET /session", "live check, introspection", "sign-in without the hash", "revoke", "everywhere, 4 sessions"}
	if os.Getenv(testenv.PostgresBin) != "" {
		s.stores = append(s.stores, onPostgres)
		wanted = append(wanted, "scs + golang-jwt", "counterfoil, 2 nodes", "a bare SELECT 1")
		if os.Getenv(testenv.RedisBin) != "" {
			s.stores = append(s.stores, onRedis)
			wanted = append(wanted, "a bare PING")
		}
	}
	var out bytes.Buffer
	if err := run(t.Context(), s, &out); err != nil {
		t.Fatal(err)
	}
	for _, name := range wanted {
		if !strings.Contains(out.String(), "| "+name+" |") {
			t.Errorf("no row %q in\n%s", name, &out)
		}
	}
}

func TestFlags(t *testing.T) {
	if s, err := parse([]string{"-stores", "postgres", "-connections", "8,32"}); err != nil ||
		len(s.stores) != 1 || len(s.connections) != 2 || s.connections[1] != 32 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, args := range [][]string{{"-stores", "mongo"}, {"-connections", "0"}, {"-nodes", "0"}, {"-loaded", "100,10"}, {"-rounds", "0"}, {"-calls", "("}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
}
