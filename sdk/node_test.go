// Package sdk_test compiles the packages in other languages and runs their
// tests, beside a real counterfoil.
package sdk_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// nodeModules is the folder in which make test has run npm ci.
func nodeModules(t *testing.T) string {
	t.Helper()
	const name = "COUNTERFOIL_TEST_NODE_MODULES"
	dir := os.Getenv(name)
	if dir == "" {
		if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
			t.Fatalf("%s is not set", name)
		}
		t.Skipf("%s is not set: run make test", name)
	}
	return filepath.Join(dir, "node_modules")
}

// run runs a program in dir and returns what it printed.
func run(t *testing.T, dir string, env []string, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, &stderr)
	}
	return out
}

// compiled is a copy of the package beside the npm packages of the tests, with
// its dist.
func compiled(t *testing.T) (dir string) {
	t.Helper()
	modules, dir := nodeModules(t), filepath.Join(t.TempDir(), "node")
	if err := os.CopyFS(dir, os.DirFS("node")); err != nil {
		t.Fatal(err)
	}
	// What was built by hand in the tree does not count.
	for _, name := range []string{"dist", "node_modules"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	run(t, dir, nil, "node", "node_modules/typescript/bin/tsc", "-p", ".")
	return dir
}

func TestNode(t *testing.T) {
	dir := compiled(t)
	t.Run("types", func(t *testing.T) {
		takePrograms(t, dir)
		run(t, dir, nil, "node", "node_modules/typescript/bin/tsc", "-p", "test")
	})
	t.Run("package", func(t *testing.T) { checkPackage(t, dir) })
	t.Run("tests", func(t *testing.T) {
		program := filepath.Join(t.TempDir(), "counterfoil")
		run(t, "..", nil, "go", "build", "-buildvcs=false", "-o", program, "./cmd/counterfoil")
		vectors, err := filepath.Abs("vectors")
		if err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(dir, "test", "*.test.mjs"))
		if err != nil || len(files) < 8 {
			t.Fatalf("%d files of tests, %v", len(files), err)
		}
		out := run(t, dir, []string{"COUNTERFOIL=" + program, "COUNTERFOIL_VECTORS=" + vectors}, "node", append([]string{"--expose-gc", "--test", "--test-reporter=tap"}, files...)...)
		if !regexp.MustCompile(`(?m)^# fail 0$`).Match(out) || !regexp.MustCompile(`(?m)^# skipped 0$`).Match(out) {
			t.Errorf("not everything ran:\n%s", out)
		}
	})
}

// A token that was seen before costs next to nothing beside one whose signature
// is checked. The measured ratio is above 50: a machine at its limit leaves it
// far above this.
func TestNodeWarmTokens(t *testing.T) {
	var rows []struct {
		Alg, Name string
		Ratio     float64
	}
	if err := json.Unmarshal(run(t, compiled(t), nil, "node", "test/bench.mjs", "--brief", "--json"), &rows); err != nil || len(rows) != 8 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, row := range rows {
		t.Logf("%s, %s: %.1f times as fast as jose", row.Alg, row.Name, row.Ratio)
		if strings.HasPrefix(row.Name, "seen before") && row.Ratio < 10 {
			t.Errorf("%s, %s: %.1f times as fast as jose", row.Alg, row.Name, row.Ratio)
		}
	}
}

// checkPackage looks at what npm publish would send.
func checkPackage(t *testing.T, dir string) {
	var manifest struct {
		License      string
		SideEffects  *bool
		Scripts      map[string]string
		Dependencies map[string]string
		Exports      map[string]any
	}
	data, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if err == nil {
		err = json.Unmarshal(data, &manifest)
	}
	if err != nil {
		t.Fatal(err)
	}
	if manifest.License != "Apache-2.0" || manifest.SideEffects == nil || *manifest.SideEffects || len(manifest.Dependencies) != 1 || manifest.Dependencies["jose"] == "" {
		t.Errorf("package.json: %s", data)
	}
	packed := packed(t, dir, manifest.Scripts)
	for _, name := range []string{"./LICENSE", "./README.md"} {
		if !slices.Contains(packed, name) {
			t.Errorf("%s would not be published", name)
		}
	}
	for entry, targets := range manifest.Exports {
		if targets, ok := targets.(map[string]any); ok {
			for _, target := range targets {
				if !slices.Contains(packed, target.(string)) {
					t.Errorf("%s is exported as %s, which would not be published", entry, target)
				}
			}
		}
	}
	ours, err := os.ReadFile(filepath.Join(dir, "LICENSE"))
	theirs, other := os.ReadFile(filepath.Join("..", "LICENSE"))
	if err != nil || other != nil || !bytes.Equal(ours, theirs) {
		t.Error("the LICENSE is not the repository's")
	}
}

// takePrograms puts the programs of the README beside the test of the types:
// they are what readers copy.
func takePrograms(t *testing.T, dir string) {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	programs := regexp.MustCompile("(?s)```js\n(.*?)```").FindAllSubmatch(readme, -1)
	if len(programs) < 2 {
		t.Fatalf("%d programs in the README", len(programs))
	}
	for i, program := range programs {
		if err := os.WriteFile(filepath.Join(dir, "test", fmt.Sprintf("readme%d.ts", i)), program[1], 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// packed is what npm would publish, as "./" and a path: built code, its types
// and texts, and no script that runs where the package is installed.
func packed(t *testing.T, dir string, scripts map[string]string) (files []string) {
	t.Helper()
	for name := range scripts {
		if strings.Contains(name, "install") || name == "prepare" {
			t.Errorf("the script %s runs on machines of others", name)
		}
	}
	var packs []struct{ Files []struct{ Path string } }
	if err := json.Unmarshal(run(t, dir, nil, "npm", "pack", "--dry-run", "--json", "--ignore-scripts", "--offline"), &packs); err != nil || len(packs) != 1 {
		t.Fatalf("npm pack: %v, %d packages", err, len(packs))
	}
	for _, f := range packs[0].Files {
		files = append(files, "./"+f.Path)
		if !regexp.MustCompile(`^(LICENSE|README\.md|package\.json|dist/[a-z]+\.(js|d\.ts))$`).MatchString(f.Path) {
			t.Errorf("%s would be published", f.Path)
		}
	}
	return files
}
