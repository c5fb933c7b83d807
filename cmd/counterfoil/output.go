package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// printer writes the results of a command: aligned text, or JSON.
type printer struct {
	w      io.Writer
	colour bool
	now    time.Time
}

func newPrinter(a *app) *printer {
	return &printer{w: a.out, colour: wantsColour(a), now: time.Now()}
}

// wantsColour is true on a terminal only. NO_COLOR (no-color.org) and
// TERM=dumb turn colour off.
func wantsColour(a *app) bool {
	if v, ok := a.lookupEnv("NO_COLOR"); ok && v != "" {
		return false
	}
	if v, _ := a.lookupEnv("TERM"); v == "dumb" {
		return false
	}
	return isTerminal(a.stdout)
}

// isTerminal reports whether a stream is a person's terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// style is a colour by its meaning. There is always a word beside it.
type style string

const (
	plain   style = ""
	bold    style = "1"
	dim     style = "2"
	good    style = "32" // valid
	warning style = "33" // stale, about to end
	bad     style = "31" // revoked, refused
)

func (p *printer) paint(s style, text string) string {
	if !p.colour || s == plain || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

func (p *printer) printf(format string, args ...any) {
	fmt.Fprintf(p.w, format, args...)
}

// json prints a value, indented, without escaping what only HTML would mind.
func (p *printer) json(v any) error {
	e := json.NewEncoder(p.w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// cell is one field of a table.
type cell struct {
	text  string
	style style
}

func text(s string) cell { return cell{printable(s), plain} }

func styled(s style, t string) cell { return cell{printable(t), s} }

// table prints rows in aligned columns; the first row is the heading.
func (p *printer) table(rows [][]cell) {
	if len(rows) > 0 {
		for i := range rows[0] {
			rows[0][i].style = dim
		}
	}
	p.columns("", rows)
}

// columns prints rows in aligned columns, each line after indent. The last
// column is not padded.
func (p *printer) columns(indent string, rows [][]cell) {
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		b.WriteString(indent)
		for i, c := range row {
			b.WriteString(p.paint(c.style, c.text))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		p.printf("%s\n", strings.TrimRight(b.String(), " "))
	}
}

// when tells a time relative to now, with the exact one beside it.
func (p *printer) when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return p.ago(t) + " (" + exact(t) + ")"
}

func exact(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// ago tells a time relative to now: "12 s ago", "in 3 d".
func (p *printer) ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := t.Sub(p.now)
	switch {
	case d > -time.Second && d < time.Second:
		return "just now"
	case d < 0:
		return roughly(-d) + " ago"
	}
	return "in " + roughly(d)
}

// roughly tells a duration in its greatest unit, rounded, and in two units
// while that is small.
func roughly(d time.Duration) string {
	const few = 3
	units := []struct {
		name string
		size time.Duration
	}{{"d", day}, {"h", time.Hour}, {"min", time.Minute}, {"s", time.Second}}
	for i, u := range units {
		if d < u.size {
			continue
		}
		if i+1 == len(units) || d >= few*u.size {
			return fmt.Sprintf("%d %s", d.Round(u.size)/u.size, u.name)
		}
		smaller := units[i+1]
		d = d.Round(smaller.size)
		if rest := d % u.size / smaller.size; rest > 0 {
			return fmt.Sprintf("%d %s %d %s", d/u.size, u.name, rest, smaller.name)
		}
		return fmt.Sprintf("%d %s", d/u.size, u.name)
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// shortDuration writes a duration as flags take it: 30d, 15m, 60s.
func shortDuration(d time.Duration) string {
	switch {
	case d >= day && d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= 2*time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d%time.Second == 0:
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return d.String()
}

// unix is a time as JSON tells it: seconds, nothing for the zero time.
func unix(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	s := t.Unix()
	return &s
}
