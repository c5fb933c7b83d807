// Package archtest holds the rules of this repository that a compiler does
// not check: which package may import which, how big an interface or a file
// may grow, and what never belongs in a committed file. Each rule is a
// function from facts to violations; arch_test.go applies it to the
// repository, rules_test.go to small made-up cases that break it.
package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/counterfoil/counterfoil"

// pkg is what the rules need of one package of go list -deps -json.
type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string // all of them, in any depth
	Export     string   // file with its compiled types
}

// ours reports whether the package is part of this repository.
func (p pkg) ours() bool { return ours(p.ImportPath) }

func ours(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

// inside returns the path within the module; "" is the root package.
func inside(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
}

// graph maps import paths to packages.
type graph map[string]pkg

// mine returns our packages, ordered by path.
func (g graph) mine() []pkg {
	var list []pkg
	for _, p := range g {
		if p.ours() {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b pkg) int { return strings.Compare(a.ImportPath, b.ImportPath) })
	return list
}

// load asks the go command for the packages that match the patterns and
// everything they import.
func load(t *testing.T, args ...string) graph {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-deps", "-json=ImportPath,Standard,Imports,Deps,Export"}, args...)...)
	cmd.Dir = repository(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	g, err := decode(strings.NewReader(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// decode reads the stream of objects that go list prints.
func decode(r io.Reader) (graph, error) {
	g := graph{}
	for d := json.NewDecoder(r); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return g, nil
		}
		if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		g[p.ImportPath] = p
	}
}

// repository returns the folder of the module.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
