package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// finding is what one check found.
type finding struct {
	Group  string `json:"group"`
	Check  string `json:"check"`
	Status string `json:"status"` // ok, warn, fail
	Says   string `json:"says"`   // what is, and what it means
	Do     string `json:"do,omitempty"`
}

const (
	statusOK   = "ok"
	statusWarn = "warn"
	statusFail = "fail"
)

func ok(check, says string, args ...any) finding {
	return finding{Check: check, Status: statusOK, Says: fmt.Sprintf(says, args...)}
}

// warn is what works now, and will not, or not always. do is a command or a setting.
func warn(check, says, do string) finding {
	return finding{Check: check, Status: statusWarn, Says: says, Do: do}
}

// fail is what does not work, or loses or tells what it must not.
func fail(check, says, do string) finding {
	return finding{Check: check, Status: statusFail, Says: says, Do: do}
}

// showFindings prints the findings, group by group.
func showFindings(p *printer, of *patient, findings []finding, asJSON bool) error {
	count := map[string]int{}
	for i := range findings {
		count[findings[i].Status]++
	}
	if asJSON {
		return p.json(map[string]any{"findings": findings, "ok": count[statusOK], "warn": count[statusWarn], "fail": count[statusFail]})
	}
	styles := map[string]style{statusOK: good, statusWarn: warning, statusFail: bad}
	group, width := "", 0
	for i := range findings {
		width = max(width, utf8.RuneCountInString(findings[i].Check))
	}
	for _, f := range findings {
		if f.Group != group {
			if group != "" {
				p.printf("\n")
			}
			group = f.Group
			p.printf("%s\n", p.paint(bold, group))
		}
		indent := 2 + 4 + 2 + width + 2
		p.printf("  %s  %s%s  %s\n", p.paint(styles[f.Status], fmt.Sprintf("%-4s", f.Status)), printable(f.Check),
			strings.Repeat(" ", max(0, width-utf8.RuneCountInString(f.Check))), wrapped(printable(f.Says), indent))
		if f.Do != "" {
			p.printf("%s%s %s\n", strings.Repeat(" ", indent), p.paint(dim, "→"), wrapped(printable(f.Do), indent+2))
		}
	}
	p.printf("\n%d ok, %s, %s\n", count[statusOK],
		p.paint(pick(count[statusWarn] > 0, warning, plain), plural(count[statusWarn], "warning")),
		p.paint(pick(count[statusFail] > 0, bad, plain), fmt.Sprintf("%d failed", count[statusFail])))
	if len(of.authorities) == 0 {
		p.printf("%s\n", p.paint(dim, "No server was asked how it is: give --authority with the address of each."))
	}
	return nil
}

func pick(yes bool, a, b style) style {
	if yes {
		return a
	}
	return b
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// lineWidth is where lines of prose end on a terminal.
const lineWidth = 110

// wrapped breaks a text into lines, those after the first after an indent.
func wrapped(text string, indent int) string {
	var b strings.Builder
	at := indent
	for i, word := range strings.Split(text, " ") {
		length := len([]rune(word))
		switch {
		case i == 0:
		case at+1+length > lineWidth:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += length
	}
	return b.String()
}
