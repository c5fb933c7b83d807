//go:build linux

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

// The whole program once, too short to say anything.
func TestRun(t *testing.T) {
	s := settings{starts: 1, rest: time.Millisecond, window: 20 * time.Millisecond, connections: 2, sessions: 10}
	s.postgres = os.Getenv(testenv.PostgresBin) != ""
	var out bytes.Buffer
	if err := run(t.Context(), s, &out); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); !strings.Contains(text, "| SQLite |") || s.postgres != strings.Contains(text, "| PostgreSQL |") {
		t.Errorf("printed\n%s", text)
	}
}
