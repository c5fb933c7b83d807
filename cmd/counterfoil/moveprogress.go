package main

import (
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil/sqlstore"
)

// moveProgress tells how far a move is: on a terminal in one line that
// changes, elsewhere in a line every few seconds.
type moveProgress struct {
	a        *app
	terminal bool
	every    time.Duration
	told     time.Time
	phase    sqlstore.MovePhase
	pass     int
	began    time.Time // the pass
}

func newMoveProgress(a *app) *moveProgress {
	term, _ := a.lookupEnv("TERM")
	p := &moveProgress{a: a, terminal: term != "dumb" && isTerminal(a.stderr), every: 5 * time.Second, told: time.Now()}
	if p.terminal {
		p.every = 100 * time.Millisecond
	}
	return p
}

func (p *moveProgress) hear(m sqlstore.MoveProgress) {
	now := time.Now()
	news := m.Phase != p.phase
	if m.Pass != p.pass {
		p.pass, p.began = m.Pass, now
	}
	p.phase = m.Phase
	if !news && now.Sub(p.told) < p.every {
		return
	}
	p.told = now
	if text := p.line(m, now); text != "" {
		if p.terminal {
			// A line that wraps could not be written over.
			fmt.Fprintf(p.a.stderr, "\r\x1b[K%.79s", text)
		} else {
			fmt.Fprintf(p.a.stderr, "%s\n", text)
		}
	}
}

func (p *moveProgress) line(m sqlstore.MoveProgress, now time.Time) string {
	switch m.Phase {
	case sqlstore.MoveSwitching:
		return "both sides are equal: switching"
	case sqlstore.MoveDone:
		return ""
	case sqlstore.MoveFenced:
		if m.Table == "" {
			return "writes are refused: the last pass"
		}
	}
	if m.Table == "" {
		return "starting"
	}
	text := fmt.Sprintf("pass %d  %s %s of %s", m.Pass, m.Table, grouped(m.Rows), grouped(max(m.Total, m.Rows)))
	if m.Phase == sqlstore.MoveFenced {
		text = "writes are refused  " + text
	}
	if spent := now.Sub(p.began); spent > 200*time.Millisecond && m.Done > 0 {
		rate := float64(m.Done) / spent.Seconds()
		left := time.Duration(float64(max(0, m.All-m.Done)) / rate * float64(time.Second))
		text += fmt.Sprintf("  %s rows/s  %s left", grouped(int64(rate)), roughly(left))
	}
	if m.Changed > 0 {
		text += fmt.Sprintf("  %s differed", grouped(m.Changed))
	}
	return text
}

// end leaves the terminal clean for what comes.
func (p *moveProgress) end() {
	if p.terminal {
		fmt.Fprint(p.a.stderr, "\r\x1b[K")
	}
}
