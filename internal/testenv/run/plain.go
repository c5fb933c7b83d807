//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
)

// plain runs, without the race detector, the tests that differ under it:
// those of files that use what a file left out under the detector declares.
// They are timings, allocation counts and numbers of rounds.
func (r *runner) plain(ctx context.Context) error {
	const form = "{{.ImportPath}}\t{{.Dir}}\t{{.TestGoFiles}} {{.XTestGoFiles}}"
	with, err := r.output(ctx, "", nil, "go", "list", "-race", "-f", form, "./...")
	if err != nil {
		return err
	}
	without, err := r.output(ctx, "", nil, "go", "list", "-f", form, "./...")
	if err != nil {
		return err
	}
	chosen := 0
	for _, p := range differing(with, without) {
		tests, err := testsThatDiffer(p.dir, p.only, p.files)
		if err != nil {
			return err
		}
		if len(tests) == 0 {
			return fmt.Errorf("%s: no test uses what %s declares: delete it", p.path, strings.Join(p.only, ", "))
		}
		chosen += len(tests)
		args := []string{"go", "test", "-vet=off", "-shuffle=on", "-timeout=15m", "-run=^(" + strings.Join(tests, "|") + ")$", p.path}
		if err := r.command(ctx, "", pure, args...); err != nil {
			return err
		}
	}
	if chosen == 0 {
		fmt.Fprintln(r.out, "no package has tests that the race detector leaves out")
	}
	return nil
}

// plainPackage is a package whose test files differ under the race detector.
type plainPackage struct {
	path, dir string
	files     []string // its test files without the detector
	only      []string // those of them that the detector leaves out
}

// differing finds them in two lists of path, folder and test files, a package a line.
func differing(with, without string) (packages []plainPackage) {
	known := map[string]bool{}
	for line := range strings.Lines(with) {
		path, _, files := listed(line)
		for _, name := range files {
			known[path+" "+name] = true
		}
	}
	for line := range strings.Lines(without) {
		p := plainPackage{}
		p.path, p.dir, p.files = listed(line)
		for _, name := range p.files {
			if !known[p.path+" "+name] {
				p.only = append(p.only, name)
			}
		}
		if len(p.only) > 0 {
			packages = append(packages, p)
		}
	}
	return packages
}

func listed(line string) (path, dir string, files []string) {
	columns := strings.SplitN(line, "\t", 3)
	if len(columns) < 3 {
		return "", "", nil
	}
	return columns[0], columns[1], strings.Fields(strings.NewReplacer("[", " ", "]", " ").Replace(columns[2]))
}

// testsThatDiffer returns the tests of the files that name what the files of
// only declare, and the tests in those themselves.
func testsThatDiffer(dir string, only, files []string) (tests []string, err error) {
	declared := map[string]bool{}
	parsed := map[string]*ast.File{}
	for _, name := range files {
		file, problem := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if problem != nil {
			err = errors.Join(err, problem)
			continue
		}
		parsed[name] = file
		if slices.Contains(only, name) {
			for _, d := range file.Decls {
				for _, id := range names(d) {
					declared[id] = true
				}
			}
		}
	}
	for _, name := range files {
		file := parsed[name]
		if file == nil || !slices.Contains(only, name) && !uses(file, declared) {
			continue
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") && f.Name.Name != "TestMain" {
				tests = append(tests, f.Name.Name)
			}
		}
	}
	slices.Sort(tests)
	return tests, err
}

// names are those that a declaration gives.
func names(d ast.Decl) (list []string) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		list = append(list, d.Name.Name)
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			if v, ok := spec.(*ast.ValueSpec); ok {
				for _, id := range v.Names {
					list = append(list, id.Name)
				}
			}
		}
	}
	return list
}

func uses(file *ast.File, declared map[string]bool) (found bool) {
	ast.Inspect(file, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && declared[id.Name] {
			found = true
		}
		return !found
	})
	return found
}
