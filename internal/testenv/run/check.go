//go:build unix

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

// pure builds without cgo, as releases are built. Only the race detector
// needs cgo.
var pure = []string{"CGO_ENABLED=0"}

// sqliteAsIs leaves SQLite, C made into Go, out of what the race detector
// watches: it has locks of its own and takes three times as long when watched.
const sqliteAsIs = "-gcflags=modernc.org/...=-race=false -d=checkptr=0"

// toolsModule holds the linters; it is not part of what is checked.
const toolsModule = "internal/tools"

// check runs everything: first what looks at the files and what may change
// them, then the tests under the race detector, the slowest part, beside all others.
func check(ctx context.Context, root string) (err error) {
	began := time.Now()
	fmt.Println("=== prepare")
	env, err := testenv.Start(ctx, root, os.Stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, env.Close()) }()
	tools, err := os.MkdirTemp("", "counterfoil-tools-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tools)) }()

	r := &runner{root: root, environ: environ(env.Environ()), out: os.Stdout}
	nested, err := nestedModules(root)
	if err != nil {
		return err
	}
	r.step(ctx, "gofmt", r.gofmt)
	r.step(ctx, "build without cgo", func(ctx context.Context) error {
		return r.command(ctx, "", pure, "go", "build", "./...")
	})
	for _, dir := range append([]string{"."}, nested...) {
		r.step(ctx, "vet "+dir, func(ctx context.Context) error {
			return r.command(ctx, dir, pure, "go", "vet", "./...")
		})
		r.step(ctx, "lint "+dir, func(ctx context.Context) error { return r.lint(ctx, dir, tools) })
		r.step(ctx, "go.mod of "+dir, func(ctx context.Context) error {
			return r.command(ctx, dir, pure, "go", "mod", "tidy", "-diff")
		})
	}
	r.step(ctx, "generated files", r.generated)
	// Three packages at once on two processors.
	r.beside(func(r *runner) {
		r.step(ctx, "test -race", func(ctx context.Context) error {
			return r.command(ctx, "", nil, "go", "test", "-race", sqliteAsIs, "-vet=off", "-shuffle=on", "-timeout=15m",
				"-p="+strconv.Itoa(runtime.GOMAXPROCS(0)), "./...")
		})
	}, func(r *runner) {
		for _, dir := range nested {
			r.step(ctx, "test "+dir, func(ctx context.Context) error {
				args := []string{"go", "test", "-vet=off", "-shuffle=on", "-timeout=15m", "-p=1"}
				if path.Base(dir) == "bench" {
					args = append(args, "-bench=.", "-benchtime=1x") // that they run; numbers are make bench's
				}
				return r.command(ctx, dir, pure, append(args, "./...")...)
			})
		}
		r.step(ctx, "test what -race leaves out", r.plain)
		for _, store := range stores {
			r.step(ctx, "suites on two nodes, "+store, func(ctx context.Context) error { return r.suites(ctx, store, 2) })
		}
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return r.recap(time.Since(began))
}

// environ adds what makes builds independent of the machine: no workspace
// file from a parent folder, and no question to git, which refuses to answer
// root about someone else's clone.
func environ(base []string) []string {
	flags := strings.TrimSpace(os.Getenv("GOFLAGS") + " -buildvcs=false")
	return append(base, "GOWORK=off", "GOFLAGS="+flags)
}

// gofmt fails if a Go file is not formatted.
func (r *runner) gofmt(ctx context.Context) error {
	var files []string
	err := walk(r.root, func(name string) error {
		if strings.HasSuffix(name, ".go") {
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	out, err := r.output(ctx, "", nil, append([]string{"gofmt", "-l"}, files...)...)
	if err != nil {
		return err
	}
	if out != "" {
		return fmt.Errorf("not formatted (run gofmt -w):\n%s", out)
	}
	return nil
}

// lint runs the linters over one module. They are built from their own
// module, on first use.
func (r *runner) lint(ctx context.Context, dir, tools string) error {
	if _, err := os.Stat(filepath.Join(tools, "staticcheck")); err != nil {
		if err := r.command(ctx, toolsModule, pure, "go", "build", "-o", tools,
			"honnef.co/go/tools/cmd/staticcheck", "github.com/kisielk/errcheck"); err != nil {
			return err
		}
	}
	return errors.Join(
		r.command(ctx, dir, pure, filepath.Join(tools, "staticcheck"), "./..."),
		r.command(ctx, dir, pure, filepath.Join(tools, "errcheck"), "-ignoretests",
			"-exclude", filepath.Join(r.root, toolsModule, "errcheck.txt"), "./..."),
	)
}

// generated runs go generate and fails if a file changed.
func (r *runner) generated(ctx context.Context) error {
	before, err := digests(r.root)
	if err != nil {
		return err
	}
	if err := r.command(ctx, "", pure, "go", "generate", "./..."); err != nil {
		return err
	}
	after, err := digests(r.root)
	if err != nil {
		return err
	}
	var changed []string
	for name, sum := range after {
		if before[name] != sum {
			changed = append(changed, name)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			changed = append(changed, name)
		}
	}
	if len(changed) > 0 {
		slices.Sort(changed)
		return fmt.Errorf("go generate changed %s: commit what it made", strings.Join(changed, ", "))
	}
	return nil
}

// stores are those of storetest/engine. One node on the first is what the
// suites run on by themselves.
var stores = []string{"memory", "sqlite", "postgresql", "redis"}

// suites runs the suites that know stores through interfaces only. Browsers are
// left to the run on one node: what they do reaches no other node than the
// requests of the tests that run here.
func (r *runner) suites(ctx context.Context, store string, nodes int) error {
	vars := append(pure[:len(pure):len(pure)], "COUNTERFOIL_TEST_STORE="+store, "COUNTERFOIL_TEST_NODES="+strconv.Itoa(nodes))
	return r.command(ctx, "", vars, "go", "test", "-vet=off", "-shuffle=on", "-timeout=5m", "-p=1", "-skip=InChromium|TestStory|^Fuzz",
		".", "./directory", "./httpapi", "./pages")
}

// nestedModules returns the folders of the modules inside of this one.
func nestedModules(root string) ([]string, error) {
	var dirs []string
	err := walk(root, func(name string) error {
		if dir := path.Dir(name); path.Base(name) == "go.mod" && dir != "." && dir != toolsModule {
			dirs = append(dirs, dir)
		}
		return nil
	})
	return dirs, err
}

// digests returns the SHA-256 of every file.
func digests(root string) (map[string][32]byte, error) {
	sums := map[string][32]byte{}
	err := walk(root, func(name string) error {
		data, err := os.ReadFile(filepath.Join(root, name))
		sums[name] = sha256.Sum256(data)
		return err
	})
	return sums, err
}

// walk calls visit with the slash-separated name of every regular file of the
// repository, in order, leaving out git's own files, installed npm packages
// and testdata.
func walk(root string, visit func(name string) error) error {
	return fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			switch entry.Name() {
			case ".git", "node_modules", "testdata":
				return fs.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		return visit(name)
	})
}
