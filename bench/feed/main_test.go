//go:build linux

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

// As a role: what startRole starts is this test binary.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The whole program once, with too few and too short to say anything.
func TestRun(t *testing.T) {
	args := []string{"-verifiers", "6", "-processes", "1", "-rates", "20,200", "-time", "200ms", "-relays", "1"}
	if os.Getenv(testenv.PostgresBin) == "" {
		args = append(args, "-postgres=false")
	}
	s, err := parse(args)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), s, &out); err != nil {
		t.Fatal(err)
	}
	wanted := []string{"counterfoil on SQLite, plain; 1 verifiers and 5 bare readers | 200 ", "counterfoil on SQLite, TLS | 20 ", "bare server-sent events, TLS |", "killed: back since then", "stopped in its tracks", "behind 1 relays"}
	if s.postgres {
		wanted = append(wanted, "revoked at another node; 1 verifiers and 5 bare readers | 200 ")
	}
	for _, text := range wanted {
		if !strings.Contains(out.String(), text) {
			t.Errorf("no %q in\n%s", text, &out)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-rates", "0"}, {"-modes", "quic"}, {"-verifiers", "0"}, {"-processes", "2", "-verifiers", "1"}, {"-time", "1ns"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
	if _, err := parse([]string{"-verifiers", "100000000"}); err == nil || !strings.Contains(err.Error(), "ulimit") {
		t.Errorf("more verifiers than files: %v", err)
	}
}

func TestSpread(t *testing.T) {
	times := make([]int64, 1000)
	for i := range times {
		times[i] = int64(1000 - i)
	}
	if got, want := spreadOf(times), (spread{1000, 500, 990, 999, 1000}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := spreadOf([]int64{7}), (spread{1, 7, 7, 7, 7}); got != want {
		t.Errorf("of one: %+v", got)
	}
}
