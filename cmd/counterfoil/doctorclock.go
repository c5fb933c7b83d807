package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

const (
	// clockLimit is where a node stops minting (protocol section 2).
	clockLimit = 5 * time.Second
	clockWarn  = time.Second
)

const mendClock = "let chrony or systemd-timesyncd keep the time on every machine: timedatectl set-ntp true; then look with timedatectl"

// checkClock holds this machine's clock against the database's.
func checkClock(ctx context.Context, p *patient) []finding {
	if !p.opened {
		return nil
	}
	if p.database.isSQLite() {
		return []finding{ok("database", "SQLite has the clock of this machine")}
	}
	before := p.now()
	theirs, err := p.database.store.Now(ctx)
	if err != nil {
		return []finding{fail("database", "its clock cannot be read: "+err.Error(), "see the check of the database above")}
	}
	// Somewhere between the question and the answer the server looked at its clock.
	took := p.now().Sub(before)
	return []finding{judgeClock("database", theirs.Sub(before.Add(took/2)), took)}
}

// judgeClock says what a difference means; the doubt is how far it may be wrong.
func judgeClock(check string, ahead, doubt time.Duration) finding {
	apart, way := ahead, "ahead of"
	if apart < 0 {
		apart, way = -apart, "behind"
	}
	says := fmt.Sprintf("its clock is %s %s this machine's", roughly(apart), way)
	switch {
	case apart-doubt/2 > clockLimit:
		return fail(check, says+": a node that is more than 5 s from the store's clock does not mint, and is not ready", mendClock)
	case apart-doubt/2 > clockWarn:
		return warn(check, says+"; from 5 s on nothing is minted", mendClock)
	}
	if doubt >= time.Second {
		return ok(check, "its clock agrees with this machine's, as far as a date in whole seconds tells")
	}
	return ok(check, "its clock agrees with this machine's (%d ms apart)", apart.Milliseconds())
}

// clockOf judges the Date of an answer, which counts in whole seconds.
func (p *patient) clockOf(answer *http.Response, asked, answered time.Time) []finding {
	date, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return nil // a proxy may leave it out
	}
	const half = 500 * time.Millisecond
	return []finding{judgeClock("clock", date.Add(half).Sub(asked.Add(answered.Sub(asked)/2)), answered.Sub(asked)+2*half)}
}
