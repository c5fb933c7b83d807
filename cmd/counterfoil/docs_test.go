package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// docs/cli.md names every command and every flag, and no flag that is gone.
func TestDocs(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	known := allFlags()
	for name := range known {
		if !strings.Contains(doc, "--"+name) {
			t.Errorf("docs/cli.md does not name --%s", name)
		}
	}
	for _, word := range strings.FieldsFunc(doc, func(r rune) bool { return !strings.ContainsRune("-abcdefghijklmnopqrstuvwxyz", r) }) {
		if name, ok := strings.CutPrefix(word, "--"); ok && name != "" && strings.Trim(name, "-") != "" && !known[name] && name != "some-name" {
			t.Errorf("docs/cli.md names --%s, which no command has", name)
		}
	}
	for _, c := range root().children {
		if !strings.Contains(doc, "## counterfoil "+c.name) {
			t.Errorf("docs/cli.md has no part about %s", c.name)
		}
	}
}

// The sample file can be used as it is.
func TestSampleConfig(t *testing.T) {
	f := newFlags()
	s := newServeFlags(f)
	rest, err := f.parse([]string{"--config", filepath.Join("..", "..", "docs", "counterfoil.conf")})
	if err != nil || len(rest) > 0 {
		t.Fatal(rest, err)
	}
	a := &app{stderr: os.Stderr}
	if err := f.fill(a.lookupEnv); err != nil {
		t.Fatal(err)
	}
	settings, err := s.settings(a)
	if err != nil {
		t.Fatal(err)
	}
	if settings.issuer != "https://app.example" || len(settings.config.Audiences) != 3 {
		t.Errorf("issuer %s, audiences %q", settings.issuer, settings.config.Audiences)
	}
}
