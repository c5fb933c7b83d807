package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	mostMethods = 9   // of an exported interface
	mostLines   = 500 // of a file
)

// longFiles may have more lines than mostLines, for the reason given.
var longFiles = map[string]string{}

// jitter may use math/rand/v2: there the numbers spread load, and nobody
// gains by guessing them. All else but tests takes crypto/rand.
var jitter = map[string]string{
	"watch.go":               "sessions that expire together are not all looked at together, and whoever found no room does not come back with all others",
	"httpapi/watch.go":       "browsers whose streams end together do not all come back together",
	"mint.go":                "lifetimes and refresh times are shortened at random, so that clients do not come at once",
	"verify/remote.go":       "spreads the repeated fetches of many verifiers",
	"verify/feed.go":         "spreads the reconnects of many verifiers",
	"verify/feed_clock.go":   "spreads their questions for the clock",
	"sqlstore/postgresql.go": "spreads the repetition of transactions that collided",
}

// loadTypes reads the compiled types of our packages in g.
func loadTypes(g graph) ([]*types.Package, error) {
	lookup := func(path string) (io.ReadCloser, error) {
		p, ok := g[path]
		if !ok || p.Export == "" {
			return nil, fmt.Errorf("no compiled types of %s", path)
		}
		return os.Open(p.Export)
	}
	imp := importer.ForCompiler(token.NewFileSet(), "gc", lookup)
	var list []*types.Package
	for _, p := range g.mine() {
		if p.Export == "" {
			continue // only tests in it
		}
		tp, err := imp.Import(p.ImportPath)
		if err != nil {
			return nil, err
		}
		list = append(list, tp)
	}
	return list, nil
}

// checkInterfaces wants exported interfaces small, embedded methods counted.
func checkInterfaces(p *types.Package) (violations []string) {
	for _, n := range p.Scope().Names() {
		obj, ok := p.Scope().Lookup(n).(*types.TypeName)
		if !ok || !obj.Exported() {
			continue
		}
		if i, ok := obj.Type().Underlying().(*types.Interface); ok && i.NumMethods() > mostMethods {
			violations = append(violations, fmt.Sprintf("%s.%s has %d methods: at most %d", p.Path(), n, i.NumMethods(), mostMethods))
		}
	}
	return violations
}

// checkRandom wants random numbers from crypto/rand, but for tests and jitter.
func checkRandom(file string, source []byte, allowed map[string]string) (violations []string) {
	if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") || under(file, testOnly) {
		return nil
	}
	f, err := parser.ParseFile(token.NewFileSet(), file, source, parser.ImportsOnly)
	if err != nil {
		return []string{err.Error()}
	}
	for _, spec := range f.Imports {
		switch imported, _ := strconv.Unquote(spec.Path.Value); imported {
		case "math/rand":
			violations = append(violations, file+" imports math/rand: crypto/rand, or for jitter math/rand/v2")
		case "math/rand/v2":
			if allowed[file] == "" {
				violations = append(violations, file+" imports math/rand/v2: crypto/rand, or list it as jitter with a reason")
			}
		}
	}
	return violations
}

// checkLength wants files short enough to be read at once.
func checkLength(file string, source []byte, allowed map[string]string) []string {
	if !slices.Contains([]string{".go", ".js", ".mjs", ".ts", ".css", ".html", ".sql"}, path.Ext(file)) || generated(file, source) {
		return nil
	}
	if lines := bytes.Count(source, []byte("\n")); lines > mostLines && allowed[file] == "" {
		return []string{fmt.Sprintf("%s has %d lines: split what are two nouns, or list it with a reason (%d)", file, lines, mostLines)}
	}
	return nil
}

// generated reports whether a Go file says that a program wrote it.
func generated(file string, source []byte) bool {
	if path.Ext(file) != ".go" {
		return false
	}
	f, err := parser.ParseFile(token.NewFileSet(), file, source, parser.PackageClauseOnly|parser.ParseComments)
	return err == nil && ast.IsGenerated(f)
}

// What no committed file contains. The patterns are put together from parts,
// so that this file does not contain them itself.
var (
	machinePath  = regexp.MustCompile(`(?:^|[\s"'` + "`" + `(=:,])/(?:home|Users|root|work|workspace|builds)/[A-Za-z0-9._-]+`)
	unfinished   = regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME)\b|not (?:yet )?imple` + `mented`)
	registryHost = regexp.MustCompile(`"?resolved"?:?\s+"?https?://|//registry\.|^\s*(?:@[\w-]+:)?registry\s*=`)
	lockFiles    = []string{"package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", ".npmrc"}
)

// checkHygiene wants files that mean the same on every machine, and that are
// finished. Test vectors of others (testdata) are as they came.
func checkHygiene(file string, source []byte) (violations []string) {
	if slices.Contains(strings.Split(file, "/"), "testdata") || bytes.IndexByte(source, 0) >= 0 {
		return nil
	}
	lock := slices.Contains(lockFiles, path.Base(file))
	number := 0
	for line := range bytes.Lines(source) {
		number++
		line = bytes.TrimRight(line, "\r\n")
		if m := machinePath.Find(line); m != nil {
			violations = append(violations, fmt.Sprintf("%s:%d: %q is a path of one machine", file, number, m[1:]))
		}
		if m := unfinished.Find(line); m != nil {
			violations = append(violations, fmt.Sprintf("%s:%d: %q: finish it, or open an issue", file, number, m))
		}
		if lock && registryHost.Match(line) {
			violations = append(violations, fmt.Sprintf("%s:%d: names a registry: everybody has their own", file, number))
		}
	}
	return violations
}
