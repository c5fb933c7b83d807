package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

const (
	feedLate    = 10 * time.Minute // the sweep runs every minute
	journalWait = 2 * time.Second
	journalPoll = 100 * time.Millisecond
)

// checkFeed looks at the log of the feed, the journal and the fence of a move,
// as far as tables tell.
func checkFeed(ctx context.Context, p *patient) (found []finding) {
	if !p.opened {
		return nil
	}
	for _, check := range []func(context.Context, *patient) ([]finding, error){checkLog, checkJournal, checkMove} {
		some, err := check(ctx, p)
		if err != nil {
			return append(found, fail("log", "it cannot be read: "+oneLine(err.Error()), "see the check of the database above"))
		}
		found = append(found, some...)
	}
	return found
}

// numbers reads one row of numbers.
func (d *database) numbers(ctx context.Context, query string, into ...any) error {
	return d.db.QueryRowContext(ctx, query).Scan(into...)
}

func checkLog(ctx context.Context, p *patient) ([]finding, error) {
	var entries, late int64
	err := p.database.numbers(ctx, fmt.Sprintf(`SELECT count(*), coalesce(sum(CASE WHEN until < %d AND kind <> 'k' THEN 1 ELSE 0 END), 0) FROM counterfoil_feed`,
		p.now().Add(-feedLate).UnixMilli()), &entries, &late)
	if err != nil {
		return nil, err
	}
	return []finding{judgeLog(p.head.Position, entries, late)}, nil
}

func judgeLog(position, entries, late int64) finding {
	if late > 0 {
		return warn("log", fmt.Sprintf("%s should have been deleted more than 10 min ago: no server has swept since", plural(int(late), "entry")), "start counterfoil serve; if one runs, look for \"sweep failed\" in its log")
	}
	return ok("log", "at position %d, %d entries that living tokens need", position, entries)
}

// journalVersion is the schema that brought the journal and the fence.
const journalVersion = 4

// checkJournal looks at what the store of the sessions, where that is another
// one, was not told yet. What a server is about to tell is gone in a moment.
func checkJournal(ctx context.Context, p *patient) ([]finding, error) {
	if p.schema < journalVersion {
		return nil, nil
	}
	var sessions sql.NullString
	var last int64
	if err := p.database.numbers(ctx, `SELECT max(sessions_in), (SELECT coalesce(max(no), 0) FROM counterfoil_journal) FROM counterfoil_meta`, &sessions, &last); err != nil {
		return nil, err
	}
	began := p.now()
	for {
		var untold int64
		if err := p.database.numbers(ctx, fmt.Sprintf(`SELECT count(*) FROM counterfoil_journal WHERE told_at IS NULL AND no <= %d`, last), &untold); err != nil {
			return nil, err
		}
		waited := p.now().Sub(began)
		if untold == 0 || waited > journalWait {
			return append(judgePlace(sessions.String, p.flags.sessions != ""), judgeJournal(sessions.String, untold, waited)...), nil
		}
		pause := time.NewTimer(journalPoll)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil, ctx.Err()
		case <-pause.C:
		}
	}
}

// judgePlace holds where the database says that sessions are against the flag.
func judgePlace(sessions string, given bool) []finding {
	switch {
	case sessions != "" && !given:
		return []finding{fail("sessions", "they are kept in Redis, and --sessions is not given: serve refuses to start", "give --sessions as the other servers do")}
	case sessions == "" && given:
		return []finding{warn("sessions", "--sessions is given, and the database has kept them itself so far: with sessions in it serve refuses to start", "counterfoil move takes them along; on a new database serve starts as it is")}
	}
	return nil
}

func judgeJournal(sessions string, untold int64, waited time.Duration) []finding {
	switch {
	case untold > 0:
		return []finding{fail("journal of sessions", fmt.Sprintf("%s not told to the store of the sessions, nor within %s: a node that reads an old copy there could mint for what was revoked", plural(int(untold), "revocation"), roughly(waited)),
			"see that Redis takes writes and that a counterfoil serve with --sessions runs: it tells them by itself")}
	case sessions != "":
		return []finding{ok("journal of sessions", "the store of the sessions was told of every revocation")}
	}
	return nil
}

// move is the row of a move to another database.
type move struct {
	role, source, target string
	alive                time.Time // when the command last said that it runs
	fenced, moved        bool
	since                time.Time // of the fence
}

func checkMove(ctx context.Context, p *patient) ([]finding, error) {
	if p.schema < journalVersion {
		return nil, nil
	}
	var m move
	var alive int64
	var fenced, moved sql.NullInt64
	err := p.database.numbers(ctx, `SELECT role, source, target, alive_at, fenced_at, moved_at FROM counterfoil_moves`,
		&m.role, &m.source, &m.target, &alive, &fenced, &moved)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	m.alive, m.fenced, m.moved, m.since = time.UnixMilli(alive), fenced.Valid, moved.Valid, time.UnixMilli(fenced.Int64)
	return []finding{judgeMove(m, p.now())}, err
}

// moveSilent is when the command of a move has ended without having finished.
const moveSilent = 30 * time.Second

func judgeMove(m move, now time.Time) finding {
	const check, again = "move", "run the same counterfoil move again: it goes on where it was; or counterfoil move --abort"
	runs := now.Sub(m.alive) < moveSilent
	switch {
	case m.moved:
		return fail(check, fmt.Sprintf("everything has moved to %s, and this database is refused, so that nobody signs in to the past", m.target), "give the new --database on every node")
	case m.role == "target" && runs:
		return warn(check, fmt.Sprintf("a move from %s is filling this database", m.source), "wait for it to end")
	case m.role == "target":
		return fail(check, fmt.Sprintf("a move from %s into this database stopped %s ago: it cannot be used as it is", m.source, roughly(now.Sub(m.alive))), again)
	case m.fenced && runs:
		return warn(check, fmt.Sprintf("a move to %s is about to switch, and has fenced writes for %s", m.target, roughly(now.Sub(m.since))), "wait for it to end")
	case m.fenced:
		return fail(check, fmt.Sprintf("a move to %s fenced all writes %s ago and has stopped: nobody can sign in or out", m.target, roughly(now.Sub(m.since))), again)
	case runs:
		return ok(check, "everything is being copied to %s", m.target)
	}
	return warn(check, fmt.Sprintf("a move to %s stopped %s ago, before it fenced anything: nobody notices", m.target, roughly(now.Sub(m.alive))), again)
}
