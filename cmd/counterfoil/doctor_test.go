package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// diagnose runs the doctor's checks as the command does, with a clock and
// roots of the test's choice.
func diagnose(t *testing.T, now func() time.Time, roots *x509.CertPool, env []string, args ...string) []finding {
	t.Helper()
	f := newFlags()
	s := newServeFlags(f)
	var authorities listValue
	f.add(&authorities, "authority", "URL", "")
	if rest, err := f.parse(args); err != nil || len(rest) > 0 {
		t.Fatal(rest, err)
	}
	p, err := newPatient(&app{stderr: os.Stderr, environ: env}, s, authorities)
	if err != nil {
		t.Fatal(err)
	}
	if now != nil {
		p.now = now
	}
	p.trust(roots)
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	return p.examine(context.Background())
}

// expect wants a check with a status, and words in what it says or does.
func expect(t *testing.T, found []finding, check, status string, words ...string) {
	t.Helper()
	for _, f := range found {
		if f.Check != check && f.Group+": "+f.Check != check {
			continue
		}
		text := f.Says + " " + f.Do
		if f.Status == status && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }) {
			if status != statusOK && f.Do == "" {
				t.Errorf("%s: does not say what to do", check)
			}
			return
		}
	}
	t.Errorf("no finding %q %s with %q in:\n%s", check, status, words, told(found))
}

func told(found []finding) string {
	var b strings.Builder
	for _, f := range found {
		b.WriteString(f.Status + " " + f.Group + ": " + f.Check + ": " + f.Says + " -> " + f.Do + "\n")
	}
	return b.String()
}

// A deployment as it should be has no failure and no warning.
func TestDoctorFindsNothingWrong(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "counterfoil.db")
	server, err := startServer(dir, cleanEnv(), "--database", "sqlite:"+path, "--metrics-listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.stop(); err != nil {
			t.Error(err)
		}
	}()
	key, err := runQuietly("api-key", "create", "--name", "doctor", "--scope", "verify", "--database", "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	found := diagnose(t, nil, nil, []string{"COUNTERFOIL_API_KEY=" + strings.TrimSpace(key)},
		"--database", "sqlite:"+path, "--issuer", server.url, "--device-binding=false", "--metrics-listen", "127.0.0.1:9700", "--max-connections", "100", "--authority", server.url)
	for _, f := range found {
		if f.Status != statusOK {
			t.Errorf("%s: %s: %s %s (%s)", f.Group, f.Check, f.Status, f.Says, f.Do)
		}
	}
	expect(t, found, "server "+server.url+": feed", statusOK, "ms old")
	expect(t, found, "keys: seal", statusOK, "opens every signing key")
}

// runQuietly runs a command in this process and returns its stdout.
func runQuietly(args ...string) (string, error) {
	var out strings.Builder
	a := &app{stdout: &out, stderr: &out, out: &sink{w: &out}}
	err := dispatch(context.Background(), a, root(), args)
	text := out.String()
	if at := strings.IndexByte(text, '\n'); at > 0 && args[0] == "api-key" {
		text = text[:at] // the rest is for people
	}
	return text, err
}

// The doctor changes nothing: no file comes, none changes, with a server and
// without one.
func TestDoctorOnlyReads(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "counterfoil.db")
	if _, err := runQuietly("migrate", "--database", "sqlite:"+path); err != nil {
		t.Fatal(err)
	}
	before := folder(t, dir)
	diagnose(t, nil, nil, nil, "--database", "sqlite:"+path)
	diagnose(t, nil, nil, nil, "--database", "sqlite:"+filepath.Join(dir, "none.db"))
	if after := folder(t, dir); before != after {
		t.Errorf("the folder was\n%s\nand is\n%s", before, after)
	}
}

func folder(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %x\n", e.Name(), sha256.Sum256(data))
	}
	return b.String()
}

// Whatever it fails on, the exit code and the last line say so; warnings do not.
func TestDoctorFailures(t *testing.T) {
	if err := failures([]finding{ok("a", "b"), warn("a", "b", "c")}); err != nil {
		t.Error(err)
	}
	if err := failures([]finding{fail("a", "b", "c"), warn("a", "b", "c"), fail("a", "b", "c")}); err == nil || !strings.Contains(err.Error(), "2 checks failed") {
		t.Error(err)
	}
}
