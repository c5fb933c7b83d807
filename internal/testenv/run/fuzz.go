//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// fuzz runs every fuzz target of every module, one after the other: go test
// fuzzes one at a time.
func fuzz(ctx context.Context, root string, each time.Duration) error {
	r := &runner{root: root, environ: environ(os.Environ()), out: os.Stdout}
	nested, err := nestedModules(root)
	if err != nil {
		return err
	}
	began := time.Now()
	for _, dir := range append([]string{"."}, nested...) {
		out, err := r.output(ctx, dir, pure, "go", "test", "-vet=off", "-list=^Fuzz", "./...")
		if err != nil {
			return err
		}
		for _, t := range fuzzTargets(out) {
			r.step(ctx, t.name+" "+t.pkg, func(ctx context.Context) error {
				return r.command(ctx, dir, pure, "go", "test", "-vet=off", "-run=^$",
					"-fuzz=^"+t.name+"$", fmt.Sprintf("-fuzztime=%s", each), t.pkg)
			})
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return r.recap(time.Since(began))
}

type fuzzTarget struct{ name, pkg string }

// fuzzTargets reads the output of go test -list: the names of a package's
// targets, then the line of the package.
func fuzzTargets(list string) []fuzzTarget {
	var names []string
	var targets []fuzzTarget
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 1 && strings.HasPrefix(fields[0], "Fuzz"):
			names = append(names, fields[0])
		case len(fields) >= 2 && fields[0] == "ok":
			for _, name := range names {
				targets = append(targets, fuzzTarget{name, fields[1]})
			}
			names = nil
		}
	}
	return targets
}
