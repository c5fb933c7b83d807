package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// command is a node of the tree of commands: a group with children, or a
// command with setup.
type command struct {
	name     string // its own word; empty for the root
	args     string // what stands after the flags in the usage line
	short    string // one line for the list of the group
	long     string // paragraphs for its own help
	examples []string
	children []*command

	// setup declares the command's flags and returns what runs once they are
	// filled in. args are what is left of the command line.
	setup func(a *app, f *flags) func(ctx context.Context, args []string) error
}

// root is the tree of all commands, in the order in which help lists them.
func root() *command {
	return &command{
		short: "Sessions you can revoke, with tokens that verify anywhere.",
		children: []*command{
			serveCommand(),
			relayCommand(),
			demoCommand(),
			apiKeyCommand(),
			userCommand(),
			sessionCommand(),
			keysCommand(),
			tokenCommand(),
			migrateCommand(),
			moveCommand(),
			restoredCommand(),
			backupCommand(),
			doctorCommand(),
			healthCommand(),
			benchCommand(),
			versionCommand(),
		},
	}
}

// usageError is a command line that cannot be meant: exit code 2.
type usageError struct {
	command string // path of the command, to point at its help
	problem string
}

func (e *usageError) Error() string {
	at := "counterfoil help"
	if e.command != "" {
		at = "counterfoil " + e.command + " -h"
	}
	return e.problem + " (see " + at + ")"
}

// usagef makes the error of a command line; dispatch fills in the command.
func usagef(format string, args ...any) error {
	return &usageError{problem: fmt.Sprintf(format, args...)}
}

// errHelp ends a command whose help was asked for.
var errHelp = errors.New("help was asked for")

// dispatch finds the command that the first words name and runs it.
func dispatch(ctx context.Context, a *app, at *command, args []string) error {
	var path []string
	for len(at.children) > 0 {
		if len(args) == 0 {
			if len(path) == 0 {
				return help(a, at, path)
			}
			return &usageError{strings.Join(path, " "), fmt.Sprintf("%s wants one of: %s", strings.Join(path, " "), at.names())}
		}
		word := args[0]
		if word == "help" && len(path) == 0 {
			return helpFor(a, at, args[1:])
		}
		if isHelp(word) {
			return help(a, at, path)
		}
		next := at.child(word)
		if next == nil {
			return &usageError{strings.Join(path, " "), unknownCommand(at, path, word)}
		}
		at, path, args = next, append(path, next.name), args[1:]
	}
	return execute(ctx, a, at, path, args)
}

func execute(ctx context.Context, a *app, c *command, path, args []string) error {
	f := newFlags()
	do := c.setup(a, f)
	rest, err := f.parse(args)
	if errors.Is(err, errHelp) {
		return help(a, c, path)
	}
	if err == nil {
		err = f.fill(a.lookupEnv)
	}
	if err == nil {
		err = do(ctx, rest)
	}
	if usage, ok := errors.AsType[*usageError](err); ok && usage.command == "" {
		usage.command = strings.Join(path, " ")
	}
	return err
}

func (c *command) child(name string) *command {
	for _, child := range c.children {
		if child.name == name {
			return child
		}
	}
	return nil
}

func (c *command) names() string {
	var names []string
	for _, child := range c.children {
		names = append(names, child.name)
	}
	return strings.Join(names, ", ")
}

func unknownCommand(at *command, path []string, word string) string {
	if strings.HasPrefix(word, "-") {
		return fmt.Sprintf("flag %q stands before the command: put it after", word)
	}
	var names []string
	for _, child := range at.children {
		names = append(names, child.name)
	}
	problem := fmt.Sprintf("unknown command %q", strings.Join(append(path, word), " "))
	if near := nearest(word, names); near != "" {
		return problem + fmt.Sprintf(": did you mean %q?", strings.Join(append(path, near), " "))
	}
	return problem
}

func isHelp(word string) bool { return word == "-h" || word == "-help" || word == "--help" }

// noArgs refuses what a command does not take.
func noArgs(args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q", args[0])
	}
	return nil
}

// oneArg wants exactly one.
func oneArg(args []string, what string) (string, error) {
	switch len(args) {
	case 0:
		return "", usagef("%s is missing", what)
	case 1:
		return args[0], nil
	}
	return "", usagef("unexpected argument %q after %s", args[1], what)
}

// nearest returns the candidate that differs from word by at most two typing
// errors, or nothing.
func nearest(word string, candidates []string) string {
	best, distance := "", 3
	for _, c := range candidates {
		if d := typos(word, c); d < distance && d < len(c) {
			best, distance = c, d
		}
	}
	return best
}

// typos is the Levenshtein distance.
func typos(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
