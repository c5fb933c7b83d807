package main

import (
	"fmt"
	"strings"
)

// helpFor is `counterfoil help WORDS…`.
func helpFor(a *app, at *command, words []string) error {
	var path []string
	for _, word := range words {
		next := at.child(word)
		if next == nil {
			return &usageError{strings.Join(path, " "), unknownCommand(at, path, word)}
		}
		at, path = next, append(path, next.name)
	}
	return help(a, at, path)
}

// help prints what a command is for, its flags and examples.
func help(a *app, c *command, path []string) error {
	p := newPrinter(a)
	name := strings.Join(append([]string{"counterfoil"}, path...), " ")
	p.printf("%s\n\n", c.short)
	switch {
	case len(c.children) > 0:
		p.printf("%s\n  %s COMMAND [flags]\n", p.paint(bold, "Usage"), name)
	case c.args != "":
		p.printf("%s\n  %s %s [flags]\n", p.paint(bold, "Usage"), name, c.args)
	default:
		p.printf("%s\n  %s [flags]\n", p.paint(bold, "Usage"), name)
	}
	if c.long != "" {
		p.printf("\n%s\n", strings.TrimSpace(c.long))
	}
	if len(c.children) > 0 {
		p.printf("\n%s\n", p.paint(bold, "Commands"))
		p.columns("  ", commandRows(c, ""))
	}
	if c.setup != nil {
		helpFlags(a, p, c)
	}
	if len(c.examples) > 0 {
		p.printf("\n%s\n", p.paint(bold, "Examples"))
		for _, example := range c.examples {
			p.printf("  %s\n", example)
		}
	}
	if len(path) == 0 {
		p.printf("\n%s\n", "counterfoil COMMAND -h tells about one command.")
	}
	return nil
}

func commandRows(c *command, prefix string) (rows [][]cell) {
	for _, child := range c.children {
		if len(child.children) > 0 {
			rows = append(rows, commandRows(child, prefix+child.name+" ")...)
			continue
		}
		rows = append(rows, []cell{text(prefix + child.name), text(child.short)})
	}
	return rows
}

func helpFlags(a *app, p *printer, c *command) {
	f := newFlags()
	c.setup(a, f)
	if len(f.order) == 0 {
		return
	}
	var rows [][]cell
	for _, name := range f.order {
		known := f.set.Lookup(name)
		left := "--" + name
		if meta := f.metas[name]; meta != "" {
			left += " " + meta
		}
		usage := strings.ReplaceAll(known.Usage, "`", "")
		if d := known.DefValue; d != "" && d != "false" && d != "0" {
			usage += fmt.Sprintf(" (default %s)", d)
		}
		rows = append(rows, []cell{text(left), text(usage)})
	}
	p.printf("\n%s\n", p.paint(bold, "Flags"))
	p.columns("  ", rows)
	first := f.order[0]
	p.printf("\nEach flag is also an environment variable (--%s: %s)", first, envName(first))
	if f.set.Lookup("config") != nil {
		p.printf("\nand a line in the file of --config (%s = …). Flags win over the environment,\nthe environment over the file", first)
	}
	p.printf(".\n")
}
