// The command counterfoil runs the authority as a server of its own and
// operates its database. It is the library plus flags: every command opens the
// same [counterfoil.Authority] that an application would embed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"unicode"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals // asks
		cancel()
		<-signals // insists
		fmt.Fprintln(os.Stderr, "counterfoil: a second signal: ended at once")
		os.Exit(exitFailed)
	}()
	if _, told := os.LookupEnv("GOMAXPROCS"); !told && runtime.GOMAXPROCS(0) < 2 {
		// With one, everything stands still for as long as SQLite waits for a
		// disk: Go takes a processor back from a system call only after a while.
		runtime.GOMAXPROCS(2)
	}
	os.Exit(run(ctx, os.Args[1:], &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ()}))
}

// app is what a command has of the world around it.
type app struct {
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	environ []string // NAME=value

	out *sink // stdout, for what commands print
}

// lookupEnv returns a variable of the environment; the last one counts.
func (a *app) lookupEnv(name string) (value string, ok bool) {
	for _, v := range a.environ {
		if n, text, found := strings.Cut(v, "="); found && n == name {
			value, ok = text, true
		}
	}
	return value, ok
}

// sink remembers the first error, so that printing need not be checked line
// by line: a full disk makes the command fail all the same.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	if s.err == nil {
		_, s.err = s.w.Write(p)
	}
	return len(p), nil
}

// run does one command and returns the exit code. What went wrong is one line
// on stderr.
func run(ctx context.Context, args []string, a *app) int {
	a.out = &sink{w: a.stdout}
	err := dispatch(ctx, a, root(), args)
	if err == nil && a.out.err != nil {
		err = fmt.Errorf("write output: %w", a.out.err)
	}
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(a.stderr, "counterfoil: %s\n", oneLine(err.Error()))
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

// oneLine makes a message fit for one line of a terminal (SEC-124): joined
// errors are divided by semicolons, control characters are spelled out.
func oneLine(text string) string {
	text = strings.TrimPrefix(strings.TrimSpace(text), "counterfoil: ")
	text = strings.ReplaceAll(text, "\n\t", " ")
	return printable(strings.ReplaceAll(text, "\n", "; "))
}

// printable spells out what a terminal would act on instead of showing it.
func printable(text string) string {
	if strings.IndexFunc(text, unprintable) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unprintable(r) {
			quoted := fmt.Sprintf("%+q", r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
