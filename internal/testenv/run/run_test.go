//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func newRunner(t *testing.T) (*runner, *bytes.Buffer) {
	var out bytes.Buffer
	return &runner{root: t.TempDir(), environ: os.Environ(), out: &out}, &out
}

// A failed step fails the whole, is named at the end with the tests that
// failed, and does not keep later steps from running.
func TestFailedStep(t *testing.T) {
	r, out := newRunner(t)
	r.step(t.Context(), "first", func(ctx context.Context) error {
		return r.command(ctx, "", nil, "sh", "-c", "echo '    --- FAIL: TestX (0.1s)'; echo noise; exit 1")
	})
	ran := false
	r.step(t.Context(), "second", func(context.Context) error { ran = true; return nil })
	err := r.recap(time.Second)
	if err == nil || !strings.Contains(err.Error(), "failed: first") {
		t.Errorf("recap returned %v", err)
	}
	if !ran {
		t.Error("the second step did not run")
	}
	_, recap, _ := strings.Cut(out.String(), "=== recap")
	if !strings.Contains(recap, "TestX") || strings.Contains(recap, "noise") || strings.Contains(recap, "PASS") {
		t.Errorf("recap reads:\n%s", recap)
	}
}

// An interrupt ends a command and what it started, even if they ignore the
// first signal: the pipe that all of them write to closes.
func TestInterruptEndsTheGroup(t *testing.T) {
	r, _ := newRunner(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.out = writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte("running")) && !bytes.Contains(p, []byte("$")) {
			cancel()
		}
		return len(p), nil
	})
	began := time.Now()
	err := r.command(ctx, "", nil, "sh", "-c", "trap '' INT; sleep 600 & echo running; wait")
	if err == nil {
		t.Error("an interrupted command succeeded")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("ended after %s: something held the output open", took)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestGenerated(t *testing.T) {
	r, _ := newRunner(t)
	r.environ = append(r.environ, "GOWORK=off", "GOFLAGS=-buildvcs=false")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(r.root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module example.org/m\n\ngo 1.26\n")
	write("m.go", "package m\n\n//go:generate cp source made\n")
	write("source", "new")
	write("made", "old")
	if err := r.generated(t.Context()); err == nil || !strings.Contains(err.Error(), "changed made") {
		t.Errorf("a stale file: %v", err)
	}
	if err := r.generated(t.Context()); err != nil {
		t.Errorf("a fresh file: %v", err)
	}
}

func TestGofmt(t *testing.T) {
	r, _ := newRunner(t)
	file := filepath.Join(r.root, "m.go")
	if err := os.WriteFile(file, []byte("package m\nvar  x = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.gofmt(t.Context()); err == nil || !strings.Contains(err.Error(), "m.go") {
		t.Errorf("got %v", err)
	}
}

func TestNestedModules(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"go.mod", "bench/go.mod", "internal/tools/go.mod", "internal/oracle/go.mod", "a/testdata/m/go.mod", "test/node/node_modules/x/go.mod"} {
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := nestedModules(root)
	if want := []string{"bench", "internal/oracle"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestDiffering(t *testing.T) {
	with := "m/a\t/m/a\t[a_test.go] []\nm/b\t/m/b b\t[race_test.go x_test.go] [y_test.go]\n"
	without := "m/a\t/m/a\t[a_test.go] []\nm/b\t/m/b b\t[norace_test.go x_test.go] [y_test.go]\n"
	got := differing(with, without)
	if len(got) != 1 || got[0].path != "m/b" || got[0].dir != "/m/b b" ||
		!slices.Equal(got[0].only, []string{"norace_test.go"}) || !slices.Equal(got[0].files, []string{"norace_test.go", "x_test.go", "y_test.go"}) {
		t.Errorf("got %+v", got)
	}
}

func TestTestsThatDiffer(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"norace_test.go": "package m\n\nconst rounds = 20\n\nfunc TestAllocations() {}\n",
		"x_test.go":      "package m\n\nfunc TestX() { for range rounds {\n} }\n\nfunc TestBeside() {}\n\nfunc helper() {}\n",
		"y_test.go":      "package m\n\nfunc TestY() {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := testsThatDiffer(dir, []string{"norace_test.go"}, []string{"norace_test.go", "x_test.go", "y_test.go"})
	if want := []string{"TestAllocations", "TestBeside", "TestX"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestFuzzTargets(t *testing.T) {
	got := fuzzTargets("FuzzRead\nFuzzWrite\nok  \tm/jws\t0.01s\n?   \tm/x\t[no test files]\nok  \tm/y\t0.01s\nFuzzZ\nok  \tm/z\t0.01s\n")
	want := []fuzzTarget{{"FuzzRead", "m/jws"}, {"FuzzWrite", "m/jws"}, {"FuzzZ", "m/z"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Parts run at once; neither the lines of one nor the steps of the others are
// cut in two, and the recap knows of all.
func TestBeside(t *testing.T) {
	r, out := newRunner(t)
	met := make(chan struct{})
	r.step(t.Context(), "first", func(context.Context) error { return nil })
	r.beside(func(r *runner) {
		r.step(t.Context(), "long", func(context.Context) error {
			fmt.Fprint(r.out, "a line ")
			<-met
			fmt.Fprint(r.out, "in two parts\n")
			return nil
		})
	}, func(r *runner) {
		r.step(t.Context(), "beside", func(context.Context) error {
			fmt.Fprintln(r.out, "one")
			met <- struct{}{}
			fmt.Fprintln(r.out, "two")
			return errors.New("broken")
		})
	})
	text := out.String()
	for _, want := range []string{"a line in two parts\n", "\n=== beside\none\ntwo\nbeside: broken\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %q", want, text)
		}
	}
	if err := r.recap(time.Second); err == nil || len(r.results) != 3 || r.results[2].step != "beside" || r.results[2].err == nil {
		t.Errorf("%v, %+v", err, r.results)
	}
}
