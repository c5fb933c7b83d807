package archtest

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"strings"
	"testing"
)

// made builds a graph from "package: import import …"; Deps are worked out.
// Names without a dot in the first element are ours when they are layers,
// else the standard library.
func made(lines ...string) graph {
	full := func(name string) (path string, standard bool) {
		if name == "root" {
			return module, false
		}
		if _, layer := layers[first(name)]; layer || strings.HasPrefix(name, "new") {
			return module + "/" + name, false
		}
		return name, !strings.Contains(first(name), ".")
	}
	g := graph{}
	add := func(name string) string {
		path, standard := full(name)
		if _, ok := g[path]; !ok {
			g[path] = pkg{ImportPath: path, Standard: standard}
		}
		return path
	}
	for _, line := range lines {
		from, imports, _ := strings.Cut(line, ":")
		path := add(from)
		p := g[path]
		for _, to := range strings.Fields(imports) {
			p.Imports = append(p.Imports, add(to))
		}
		g[path] = p
	}
	for path, p := range g {
		seen := map[string]bool{}
		var follow func(string)
		follow = func(at string) {
			for _, to := range g[at].Imports {
				if !seen[to] {
					seen[to] = true
					follow(to)
				}
			}
		}
		follow(path)
		for dep := range seen {
			p.Deps = append(p.Deps, dep)
		}
		g[path] = p
	}
	return g
}

// Each rule is silent about a good graph and speaks about a planted fault.
func TestGraphRules(t *testing.T) {
	for _, c := range []struct {
		name  string
		check func(graph) []string
		graph graph
		want  string // part of the one violation; "" for none
	}{
		{"the design", checkArrows, made("verify: internal/jws fmt", "root: verify internal/feed", "directory: root", "sqlstore: root directory",
			"storetest: root", "httpapi: directory root", "counterfoiltest: memstore httpapi", "cmd/counterfoil: sqlstore httpapi"), ""},
		{"folders of one layer", checkArrows, made("cmd/counterfoil: cmd/counterfoil/demo", "internal/jws: internal/strict", "sqlstore: sqlstore/migrations"), ""},
		{"examples import anything", checkArrows, made("examples/embed: root sqlstore httpapi"), ""},
		{"verify imports the library", checkArrows, made("verify: root"), "verify imports the root package"},
		{"internal imports the library", checkArrows, made("internal/jws: root"), "internal/jws imports the root package"},
		{"internal imports verify", checkArrows, made("internal/jws: verify"), "internal/jws imports verify"},
		{"the library imports a store", checkArrows, made("root: memstore"), "the root package imports memstore"},
		{"the library imports the directory", checkArrows, made("root: directory"), "the root package imports directory"},
		{"a store imports a store", checkArrows, made("sqlstore: memstore"), "sqlstore imports memstore"},
		{"a store imports HTTP", checkArrows, made("sqlstore: httpapi"), "sqlstore imports httpapi"},
		{"httpapi imports a store", checkArrows, made("httpapi: sqlstore"), "httpapi imports sqlstore: it knows stores"},
		{"a page imports a store", checkArrows, made("pages: memstore"), "pages imports memstore: it knows stores"},
		{"a library imports a program", checkArrows, made("counterfoiltest: cmd/counterfoil"), "counterfoiltest imports cmd/counterfoil"},
		{"a program imports an example", checkArrows, made("cmd/counterfoil: examples/embed"), "cmd/counterfoil imports examples/embed"},
		{"a package without a place", checkArrows, made("newthing: fmt"), "newthing has no place"},

		{"verify with our internals", checkVerify, made("verify: internal/jws net/http", "internal/jws: crypto/ecdsa"), ""},
		{"others use what they like", checkVerify, made("root: example.org/jose"), ""},
		{"verify brings a module", checkVerify, made("verify: example.org/jose"), "verify brings example.org/jose"},
		{"verify brings a module by an internal package", checkVerify, made("verify: internal/jws", "internal/jws: example.org/jose"), "verify brings example.org/jose"},
		{"verify brings golang.org/x", checkVerify, made("verify: golang.org/x/sync/singleflight"), "verify brings golang.org/x"},

		{"a program brings drivers", checkDrivers, made("cmd/counterfoil: sqlstore modernc.org/sqlite github.com/jackc/pgx/v5/stdlib"), ""},
		{"a store brings its driver", checkDrivers, made("sqlstore: modernc.org/sqlite"), "sqlstore brings the driver modernc.org/sqlite"},
		{"the library brings a driver far down", checkDrivers, made("root: example.org/x", "example.org/x: github.com/jackc/pgx/v5"), "the root package brings the driver"},

		{"a clean program", checkBinary, made("cmd/counterfoil: sqlstore fmt"), ""},
		{"tests may use tests", checkBinary, made("storetest: testing"), ""},
		{"a program links testing", checkBinary, made("cmd/counterfoil: example.org/x", "example.org/x: testing"), "cmd/counterfoil links testing"},
		{"a program links the store tests", checkBinary, made("cmd/counterfoil: storetest"), "cmd/counterfoil links " + module + "/storetest"},
		{"a program links the test driver", checkBinary, made("cmd/counterfoil: internal/testenv"), "internal/testenv"},
		{"a program links the test authority", checkBinary, made("cmd/counterfoil: counterfoiltest"), "counterfoiltest"},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, c.check(c.graph), c.want) })
	}
}

func TestInterfaceRule(t *testing.T) {
	for _, c := range []struct{ name, source, want string }{
		{"nine methods", "type Store interface { A(); B(); C(); D(); E(); F(); G(); H(); I() }", ""},
		{"ten methods", "type Store interface { A(); B(); C(); D(); E(); F(); G(); H(); I(); J() }", "p.Store has 10 methods"},
		{"ten with the embedded", "type small interface { A(); B(); C(); D(); E() }\ntype Store interface { small; F(); G(); H(); I(); J() }", "p.Store has 10 methods"},
		{"not exported", "type store interface { A(); B(); C(); D(); E(); F(); G(); H(); I(); J() }", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, "p.go", "package p\n"+c.source, 0)
			if err != nil {
				t.Fatal(err)
			}
			config := types.Config{Importer: importer.Default()}
			p, err := config.Check("p", fset, []*ast.File{f}, nil)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, checkInterfaces(p), c.want)
		})
	}
}

func TestFileRules(t *testing.T) {
	random := func(file, source string) []string {
		return checkRandom(file, []byte(source), map[string]string{"verify/wait.go": "spreads retries"})
	}
	length := func(file, source string) []string {
		return checkLength(file, []byte(source), map[string]string{"table.go": "one table"})
	}
	hygiene := func(file, source string) []string { return checkHygiene(file, []byte(source)) }
	long := "package p\n" + strings.Repeat("// line\n", mostLines)

	for _, c := range []struct {
		name         string
		check        func(file, source string) []string
		file, source string
		want         string
	}{
		{"crypto/rand", random, "a.go", "package p\nimport \"crypto/rand\"\n", ""},
		{"old math/rand", random, "a.go", "package p\nimport \"math/rand\"\n", "a.go imports math/rand:"},
		{"math/rand/v2", random, "a.go", "package p\nimport r \"math/rand/v2\"\n", "a.go imports math/rand/v2"},
		{"math/rand/v2 for jitter", random, "verify/wait.go", "package p\nimport \"math/rand/v2\"\n", ""},
		{"math/rand/v2 in the store tests", random, "storetest/races.go", "package p\nimport \"math/rand/v2\"\n", ""},
		{"math/rand in a test", random, "a_test.go", "package p\nimport \"math/rand\"\n", ""},

		{"a long file", length, "a.go", long, "a.go has 501 lines"},
		{"a long file with a reason", length, "table.go", long, ""},
		{"a long generated file", length, "a.go", "// Code generated by x. DO NOT EDIT.\n\n" + long, ""},
		{"a long text", length, "a.md", long, ""},

		{"a path in a home", hygiene, "a.md", "see /ho" + "me/ann/src\n", "path of one machine"},
		{"a path of a workspace", hygiene, "a.go", "const d = \"/wo" + "rk/main\"\n", "path of one machine"},
		{"a URL", hygiene, "a.md", "https://app.example/home/ann and ~/src and /etc/ssl/certs\n", ""},
		{"unfinished", hygiene, "a.go", "// TO" + "DO later\n", "finish it"},
		{"unfinished in words", hygiene, "a.go", "errors.New(\"not imple" + "mented\")\n", "finish it"},
		{"vectors of others", hygiene, "jws/testdata/v.json", "\"TO" + "DO\"\n", ""},
		{"a lock file", hygiene, "test/node/package-lock.json", "\"integrity\": \"sha512-x\"\n\"url\": \"https://opencollective.com/express\"\n", ""},
		{"a lock file with a host", hygiene, "test/node/package-lock.json", "  \"resolved\": \"https://npm.example/jose.tgz\",\n", "names a registry"},
		{"a setting with a host", hygiene, ".npmrc", "registry=https://npm.example\n", "names a registry"},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, c.check(c.file, c.source), c.want) })
	}
}

// expect wants one violation that contains want, or none when it is empty.
func expect(t *testing.T, got []string, want string) {
	t.Helper()
	switch {
	case want == "" && len(got) > 0:
		t.Errorf("found %q where nothing is wrong", got)
	case want != "" && (len(got) != 1 || !strings.Contains(got[0], want)):
		t.Errorf("found %q, want one that contains %q", got, want)
	}
}
