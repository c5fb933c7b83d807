package examples_test

import (
	"encoding/json"
	"maps"
	"os"
	"path"
	"strings"
	"testing"
)

// npm ci refuses a lock file that lacks a package, though it is one for
// another kind of machine. Who has node_modules from before never sees it.
func TestLockFilesAreWhole(t *testing.T) {
	for _, file := range []string{"express/package-lock.json", "spa/package-lock.json", "../test/node/package-lock.json"} {
		var lock struct {
			Packages map[string]struct {
				Dependencies, OptionalDependencies map[string]string
			}
		}
		data, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(data, &lock)
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(lock.Packages) < 10 {
			t.Fatalf("%s: %d packages", file, len(lock.Packages))
		}
		// A package is found beside the one that wants it, or further out.
		found := func(from, name string) bool {
			for {
				if _, ok := lock.Packages[path.Join(from, "node_modules", name)]; ok || from == "" {
					return ok
				}
				from = strings.TrimSuffix(from[:max(0, strings.LastIndex(from, "node_modules/"))], "/")
			}
		}
		for from, p := range lock.Packages {
			wanted := maps.Clone(p.OptionalDependencies)
			if wanted == nil {
				wanted = make(map[string]string)
			}
			maps.Copy(wanted, p.Dependencies)
			for name, version := range wanted {
				if !found(from, name) {
					t.Errorf("%s: %s %s, which %q wants, is missing; see that the registry has it, and run npm install --package-lock-only", file, name, version, from)
				}
			}
		}
	}
}
