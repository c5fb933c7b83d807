package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// layers gives the first element of a package's path its place. Imports point
// to a lower layer only, so that a service that verifies tokens never links
// a store, and a store never links HTTP.
var layers = map[string]int{
	"internal":        0,
	"verify":          1,
	"":                2, // the library itself
	"directory":       3,
	"memstore":        4,
	"sqlstore":        4,
	"redisstore":      5, // keeps all but sessions in a sqlstore
	"storetest":       6, // its engine opens each store
	"httpapi":         5,
	"relay":           5,
	"pages":           6,
	"dashboard":       6,
	"counterfoiltest": 7,
	"simulation":      7,
	"cmd":             8,
	"faults":          9,
	"examples":        9,
	"sdk":             9, // vectors and tests of the packages in other languages
}

var (
	stores = []string{"memstore", "sqlstore", "redisstore", "storetest"}

	// storeless knows stores only through interfaces.
	storeless = []string{"", "directory", "httpapi", "pages", "dashboard"}

	// testOnly is never linked into the binary that people run.
	testOnly = []string{"storetest", "counterfoiltest", "simulation", "faults", "internal/testenv", "internal/archtest"}

	// drivers are database drivers and clients. The caller of a store brings
	// one; a library that did would choose for everybody.
	drivers = []string{
		"modernc.org/sqlite",
		"github.com/glebarez",
		"github.com/jackc/pgx",
		"github.com/lib/pq",
		"github.com/mattn/go-sqlite3",
		"github.com/ncruces/go-sqlite3",
		"github.com/redis/go-redis",
		"github.com/redis/rueidis",
		"zombiezen.com/go/sqlite",
	}

	// driverAllowed may link a driver: programs, and the one store whose
	// protocol has no counterpart of database/sql.
	driverAllowed = []string{"cmd", "examples", "redisstore", "storetest/engine"}
)

// first returns the first element of a path within the module.
func first(path string) string {
	head, _, _ := strings.Cut(path, "/")
	return head
}

// under reports whether path is one of the folders or lies below one.
func under(path string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool {
		return path == f || (f != "" && strings.HasPrefix(path, f+"/"))
	})
}

// checkArrows wants every import among our packages to point down.
func checkArrows(g graph) (violations []string) {
	for _, p := range g.mine() {
		from := inside(p.ImportPath)
		place, ok := layers[first(from)]
		if !ok {
			violations = append(violations, fmt.Sprintf("%s has no place in the layers: give it one", from))
			continue
		}
		for _, imported := range p.Imports {
			if !ours(imported) {
				continue
			}
			to := inside(imported)
			switch {
			case first(from) == first(to) && from != "" && to != "":
				// Folders below one of the layers see each other.
			case layers[first(to)] >= place:
				violations = append(violations, fmt.Sprintf("%s imports %s: imports point down only", name(from), name(to)))
			case under(from, storeless) && under(to, stores):
				violations = append(violations, fmt.Sprintf("%s imports %s: it knows stores through interfaces only", name(from), name(to)))
			}
		}
	}
	return violations
}

// checkVerify wants packages verify and relay, and what they bring, to be the
// standard library and our own internal packages.
func checkVerify(g graph) (violations []string) {
	for _, p := range g.mine() {
		if top := first(inside(p.ImportPath)); top != "verify" && top != "relay" {
			continue
		}
		for _, dep := range p.Deps {
			d, known := g[dep]
			allowed := dep == "unsafe" || (known && d.Standard) ||
				(ours(dep) && (first(inside(dep)) == "internal" || first(inside(dep)) == "verify"))
			if !allowed {
				violations = append(violations, fmt.Sprintf("%s brings %s: the standard library and our internal packages only", name(inside(p.ImportPath)), dep))
			}
		}
	}
	return violations
}

// checkDrivers wants libraries to leave the choice of a driver to the caller.
func checkDrivers(g graph) (violations []string) {
	for _, p := range g.mine() {
		from := inside(p.ImportPath)
		if under(from, driverAllowed) {
			continue
		}
		for _, dep := range p.Deps {
			if under(dep, drivers) {
				violations = append(violations, fmt.Sprintf("%s brings the driver %s: the caller brings it", name(from), dep))
			}
		}
	}
	return violations
}

// checkBinary wants programs free of test code.
func checkBinary(g graph) (violations []string) {
	for _, p := range g.mine() {
		if first(inside(p.ImportPath)) != "cmd" {
			continue
		}
		for _, dep := range p.Deps {
			if dep == "testing" || strings.HasPrefix(dep, "testing/") || (ours(dep) && under(inside(dep), testOnly)) {
				violations = append(violations, fmt.Sprintf("%s links %s, which is for tests", name(inside(p.ImportPath)), dep))
			}
		}
	}
	return violations
}

// name is how a message calls a package of ours.
func name(path string) string {
	if path == "" {
		return "the root package"
	}
	return path
}
