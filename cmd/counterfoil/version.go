package main

import (
	"context"
	"runtime"
	"runtime/debug"

	"github.com/counterfoil/counterfoil/internal/stamp"
)

func versionCommand() *command {
	return &command{
		name:  "version",
		short: "Print the version of this binary",
		setup: func(a *app, f *flags) func(context.Context, []string) error {
			asJSON := jsonFlag(f)
			return func(_ context.Context, args []string) error {
				if err := noArgs(args); err != nil {
					return err
				}
				b := readBuild()
				p := newPrinter(a)
				if *asJSON {
					return p.json(b)
				}
				p.printf("counterfoil %s", b.Version)
				if b.Revision != "" {
					p.printf(" (%s", b.Revision)
					if b.Modified {
						p.printf(", modified")
					}
					p.printf(")")
				}
				p.printf("\n%s %s\n", b.Go, b.Platform)
				return nil
			}
		},
	}
}

// jsonFlag declares --json, which every command that prints results has.
func jsonFlag(f *flags) *boolValue {
	v := new(boolValue)
	f.add(v, "json", "", "print JSON")
	return v
}

// build says what this binary was made from.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readBuild() build {
	b := build{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if stamp.Version != "" {
		b.Version, b.Revision = stamp.Version, stamp.Revision[:min(12, len(stamp.Revision))]
		return b
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}
