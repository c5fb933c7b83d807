package sdk_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// What a page loads, minified and compressed, in bytes.
const (
	mostCore   = 5_000 // createSession and all it does
	mostScript = 6_800 // the script-tag file, passkeys included
)

// builtBrowser is a copy of the package beside the npm packages of the tests,
// with its dist as npm run build makes it.
func builtBrowser(t *testing.T) (dir string) {
	t.Helper()
	modules, dir := nodeModules(t), filepath.Join(t.TempDir(), "browser")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// What was built by hand in the tree does not count.
	for _, name := range []string{"src", "test"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join("browser", name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"package.json", "tsconfig.json", "README.md", "LICENSE"} {
		data, err := os.ReadFile(filepath.Join("browser", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	run(t, dir, nil, "npm", "run", "build", "--silent", "--offline")
	return dir
}

func TestBrowser(t *testing.T) {
	dir := builtBrowser(t)
	t.Run("types", func(t *testing.T) {
		takeBrowserPrograms(t, dir)
		run(t, dir, nil, "node", "node_modules/typescript/bin/tsc", "-p", "test")
	})
	t.Run("package", func(t *testing.T) { checkBrowserPackage(t, dir) })
	t.Run("size", func(t *testing.T) {
		// What is loaded on demand is a file of its own.
		run(t, dir, nil, "node_modules/.bin/esbuild", "src/index.ts", "--bundle", "--minify", "--splitting", "--format=esm", "--target=es2022", "--outdir=size")
		core, err := os.ReadFile(filepath.Join(dir, "size", "index.js"))
		if err == nil && regexp.MustCompile(`import\s*[{"*]`).Match(core) {
			err = errors.New("the core is in several files")
		}
		if err != nil {
			t.Fatal(err)
		}
		script, err := os.ReadFile(filepath.Join(dir, "dist", "counterfoil.js"))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []struct {
			name string
			code []byte
			most int
		}{{"the core", core, mostCore}, {"dist/counterfoil.js", script, mostScript}} {
			size := compressed(t, part.code)
			t.Logf("%s: %d bytes compressed of %d", part.name, size, len(part.code))
			if size > part.most {
				t.Errorf("%s has %d bytes, compressed: at most %d", part.name, size, part.most)
			}
		}
	})
	t.Run("forbidden", func(t *testing.T) { checkForbidden(t, dir) })
	t.Run("tests", func(t *testing.T) {
		program := filepath.Join(t.TempDir(), "counterfoil")
		run(t, "..", nil, "go", "build", "-buildvcs=false", "-o", program, "./cmd/counterfoil")
		files, err := filepath.Glob(filepath.Join(dir, "test", "*.test.mjs"))
		if err != nil || len(files) < 4 {
			t.Fatalf("%d files of tests, %v", len(files), err)
		}
		out := run(t, dir, []string{"COUNTERFOIL=" + program}, "node", append([]string{"--test", "--test-reporter=tap"}, files...)...)
		if !regexp.MustCompile(`(?m)^# fail 0$`).Match(out) || !regexp.MustCompile(`(?m)^# skipped 0$`).Match(out) {
			t.Errorf("not everything ran:\n%s", out)
		}
		for _, line := range regexp.MustCompile(`(?m)seed .*$`).FindAll(out, -1) {
			t.Logf("%s", line)
		}
	})
}

func compressed(t *testing.T, code []byte) int {
	t.Helper()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(code); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Len()
}

// checkForbidden proves SEC-104 as far as text can: what is not there is not
// used. Tokens live in memory; code is never made of text.
func checkForbidden(t *testing.T, dir string) {
	forbidden := regexp.MustCompile(`localStorage|sessionStorage|indexedDB|document\s*\.\s*cookie|\beval\b|new Function|innerHTML|\bcaches\b|postMessage\([^)]*[tT]oken`)
	files, err := filepath.Glob(filepath.Join(dir, "dist", "*.js"))
	if err != nil || len(files) < 8 {
		t.Fatalf("%d files in dist, %v", len(files), err)
	}
	for _, file := range files {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if found := forbidden.Find(code); found != nil {
			t.Errorf("%s contains %q", filepath.Base(file), found)
		}
	}
}

// takeBrowserPrograms puts the programs of the README beside the test of the
// types: they are what readers copy. The first is run by the tests, too.
func takeBrowserPrograms(t *testing.T, dir string) {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	programs := regexp.MustCompile("(?s)```[jt]s\n(.*?)```").FindAllSubmatch(readme, -1)
	if len(programs) < 4 {
		t.Fatalf("%d programs in the README", len(programs))
	}
	for i, program := range programs {
		if err := os.WriteFile(filepath.Join(dir, "test", fmt.Sprintf("readme%d.ts", i)), program[1], 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// checkBrowserPackage looks at what npm publish would send.
func checkBrowserPackage(t *testing.T, dir string) {
	var manifest struct {
		License          string
		SideEffects      *bool
		Scripts          map[string]string
		Dependencies     map[string]string
		PeerDependencies map[string]string
		Exports          map[string]any
	}
	data, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if err == nil {
		err = json.Unmarshal(data, &manifest)
	}
	if err != nil {
		t.Fatal(err)
	}
	if manifest.License != "Apache-2.0" || manifest.SideEffects == nil || *manifest.SideEffects || len(manifest.Dependencies)+len(manifest.PeerDependencies) != 0 {
		t.Errorf("package.json: %s", data)
	}
	packed := packed(t, dir, manifest.Scripts)
	want := []string{"./LICENSE", "./README.md"}
	for _, targets := range manifest.Exports {
		switch targets := targets.(type) {
		case string:
			want = append(want, targets)
		case map[string]any:
			for _, target := range targets {
				want = append(want, fmt.Sprint(target))
			}
		}
	}
	for _, name := range want {
		if !slices.Contains(packed, name) {
			t.Errorf("%s would not be published", name)
		}
	}
	ours, err := os.ReadFile(filepath.Join(dir, "LICENSE"))
	theirs, other := os.ReadFile(filepath.Join("..", "LICENSE"))
	if err != nil || other != nil || !bytes.Equal(ours, theirs) {
		t.Error("the LICENSE is not the repository's")
	}
}
