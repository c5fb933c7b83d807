package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
)

// flags are the settings of one command. Each is a flag, an environment
// variable and a line in the configuration file; the first of these three
// that has it counts.
type flags struct {
	set    *flag.FlagSet
	order  []string
	metas  map[string]string // what stands for the value in help
	given  map[string]bool   // set by flag, environment or file
	config string
}

const (
	envPrefix = "COUNTERFOIL_"
	// These are secrets, so they are no flags: arguments are visible to others.
	sealVariable   = "COUNTERFOIL_SEAL"
	apiKeyVariable = "COUNTERFOIL_API_KEY"
)

func newFlags() *flags {
	f := &flags{
		set:   flag.NewFlagSet("", flag.ContinueOnError),
		metas: make(map[string]string),
		given: make(map[string]bool),
	}
	return f
}

// add declares a flag. meta names its value in help; a flag without one is a
// switch.
func (f *flags) add(v flag.Value, name, meta, usage string) {
	f.set.Var(v, name, usage)
	f.order = append(f.order, name)
	f.metas[name] = meta
}

// configFlag lets a command read the configuration file.
func (f *flags) configFlag() {
	f.add((*textValue)(&f.config), "config", "FILE", "read settings from FILE, one `name = value` a line")
}

// has reports whether somebody set the flag.
func (f *flags) has(name string) bool { return f.given[name] }

// parse reads the command line. Flags may stand before, between and after the
// other arguments, which it returns; after -- nothing is a flag.
func (f *flags) parse(args []string) (rest []string, err error) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(rest, args[i+1:]...), nil
		}
		if isHelp(arg) {
			return nil, errHelp
		}
		if len(arg) < 2 || arg[0] != '-' {
			rest = append(rest, arg)
			continue
		}
		name, value, inline := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
		known := f.set.Lookup(name)
		switch {
		case known == nil:
			return nil, f.unknown(name)
		case inline:
		case f.isSwitch(name):
			value = "true"
		case i+1 == len(args):
			return nil, usagef("flag --%s wants a value (%s)", name, f.metas[name])
		default:
			i++
			value = args[i]
		}
		if err := f.assign(name, value); err != nil {
			return nil, usagef("--%s %q: %v", name, value, err)
		}
	}
	return rest, nil
}

func (f *flags) unknown(name string) error {
	if near := nearest(name, f.order); near != "" {
		return usagef("unknown flag --%s: did you mean --%s?", name, near)
	}
	return usagef("unknown flag --%s", name)
}

func (f *flags) isSwitch(name string) bool { return f.metas[name] == "" }

func (f *flags) assign(name, value string) error {
	f.given[name] = true
	return f.set.Set(name, value)
}

// fill takes what the command line left open from the environment, then from
// the configuration file.
func (f *flags) fill(lookup func(string) (string, bool)) error {
	fromFlags := make(map[string]bool)
	for name := range f.given {
		fromFlags[name] = true
	}
	for _, name := range f.order {
		variable := envName(name)
		value, ok := lookup(variable)
		// An empty variable is how compose files leave one out.
		if !ok || value == "" || fromFlags[name] {
			continue
		}
		if err := f.assign(name, value); err != nil {
			return usagef("environment variable %s: %q: %v", variable, value, err)
		}
	}
	if f.config == "" {
		return nil
	}
	return f.fillFromFile(f.config)
}

func (f *flags) fillFromFile(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration file: %w", err)
	}
	lines, err := parseConfig(string(data))
	if err != nil {
		return fmt.Errorf("configuration file %s: %w", path, err)
	}
	settled := make(map[string]bool)
	for name := range f.given {
		settled[name] = true
	}
	known := allFlags()
	for _, line := range lines {
		switch {
		case line.name == "config":
			return fmt.Errorf("configuration file %s line %d: a configuration file cannot name another", path, line.number)
		case f.set.Lookup(line.name) == nil && known[line.name]:
			continue // a setting of another command: one file serves all
		case f.set.Lookup(line.name) == nil:
			problem := fmt.Sprintf("unknown setting %q", line.name)
			if near := nearest(line.name, f.order); near != "" {
				problem += fmt.Sprintf(": did you mean %q?", near)
			}
			return fmt.Errorf("configuration file %s line %d: %s", path, line.number, problem)
		case settled[line.name]:
			continue
		}
		if err := f.assign(line.name, line.value); err != nil {
			return fmt.Errorf("configuration file %s line %d: %s = %q: %w", path, line.number, line.name, line.value, err)
		}
	}
	return nil
}

// allFlags are the names of the flags of all commands.
func allFlags() map[string]bool {
	names := make(map[string]bool)
	var walk func(c *command)
	walk = func(c *command) {
		for _, child := range c.children {
			walk(child)
		}
		if c.setup != nil {
			f := newFlags()
			c.setup(&app{}, f)
			for _, name := range f.order {
				names[name] = true
			}
		}
	}
	walk(root())
	return names
}

// envName is the environment variable of a flag.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// strays are our variables in the environment that look like a misspelt flag.
func strays(environ []string) (problems []string) {
	known := allFlags()
	var names []string
	for name := range known {
		names = append(names, envName(name))
	}
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(names, name) || name == sealVariable || name == apiKeyVariable {
			continue
		}
		if near := nearest(name, names); near != "" {
			problems = append(problems, fmt.Sprintf("environment variable %s is unknown and ignored: did you mean %s?", name, near))
		}
	}
	slices.Sort(problems)
	return problems
}
