package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

var update = flag.Bool("update", false, "write the tables into docs/scale.md")

const begin, end = "<!-- bench/scale: begin -->\n", "<!-- bench/scale: end -->"

// docs/scale.md holds what the program prints.
func TestPage(t *testing.T) {
	name := filepath.Join("..", "..", "docs", "scale.md")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run(nil, &out); err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	held, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatal("the page has no place for the tables")
	}
	if held == out.String() {
		return
	}
	if !*update {
		t.Fatalf("the page holds other tables: go -C bench test ./scale -update\n%s", &out)
	}
	if err := os.WriteFile(name, []byte(before+begin+out.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What counts as real bytes is what goes over the wire.
func TestRealBytes(t *testing.T) {
	entry := revoked.Entry{Kind: revoked.Session, ID: "4fzyo82mvyr9z0KfJ2W8QhpD", Until: time.Unix(1763770075, 0)}
	if n := len(entry.AppendJSON(nil)) + 1; n != entryBytes {
		t.Errorf("an entry has %d bytes", n)
	}
	const chunk = len("0000002a\r\n\r\n")
	pos := feed.Position{Timeline: 1763770075000000, Seq: 1763770075010422} // as after a restore
	if n := len(feed.AppendLive(nil, pos, nil)) + chunk; n < frameBytes || n > frameBytes+30 {
		t.Errorf("a frame has %d bytes", n)
	}
	beat := feed.Beat{AgeMS: 12, Now: 1763770000.123456, Keys: 1763770000123456, Node: "0QzMzw2vovqaoOoVQcO2w4", Level: 2}
	if n := len(feed.AppendBeat(nil, beat)) + chunk; n < beatBytes-25 || n > beatBytes+25 {
		t.Errorf("a beat has %d bytes", n)
	}
}

func TestFlags(t *testing.T) {
	var out strings.Builder
	if err := run([]string{"-users", "1000", "-sessions", "500", "-verifiers", "3"}, &out); err != nil || !strings.Contains(out.String(), "one SQLite node") {
		t.Errorf("%v\n%s", err, &out)
	}
	if err := run([]string{"-users", "0"}, &out); err == nil {
		t.Error("no users are taken")
	}
}
