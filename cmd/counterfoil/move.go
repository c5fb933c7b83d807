package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/redisstore"
	"github.com/counterfoil/counterfoil/sqlstore"
)

func moveCommand() *command {
	return &command{
		name:  "move",
		short: "Move everything to another database while servers run; nobody is signed out",
		long: `Copies what --database holds to --to, which has to be empty, while servers go on
with the old one. At the end writes (sign-ins, revocations) are refused for as long
as the last comparison takes, with 503 and Retry-After; access tokens are minted all
the time. Then the old database is switched off, and the new one on.

Whatever ends it before that, nothing has changed: run it again, and it goes on.
--abort gives it up.`,
		examples: []string{
			"counterfoil move --database sqlite:counterfoil.db --to postgres://counterfoil@db/counterfoil --dry-run",
			"counterfoil move --database sqlite:counterfoil.db --to postgres://counterfoil@db/counterfoil",
			"counterfoil move --database sqlite:counterfoil.db --abort",
		},
		setup: moveEverything,
	}
}

// moveSettings are the flags of move that hold together.
type moveSettings struct {
	from, to      *database
	sessions      *redisServers // nil: in to
	fenceAtMost   time.Duration
	dryRun, share bool
	asJSON        bool
}

func moveEverything(a *app, f *flags) func(context.Context, []string) error {
	var to, toSessions textValue
	var dryRun, abort, share boolValue
	fence := durationValue(10 * time.Second)
	database := databaseFlag(f)
	f.add(&to, "to", "URL", "the new database: empty, or what an earlier run has left")
	f.add(&toSessions, "to-sessions", "URL", "redis://USER@HOST takes the sessions, --to all else; empty too")
	f.add(&fence, "fence-at-most", "DURATION", "how long writes may be refused at a time; when that is not enough, they are allowed again and it goes on")
	f.add(&dryRun, "dry-run", "", "count, look for rows that the new database would refuse, and change nothing")
	f.add(&abort, "abort", "", "give up a move that has not switched: writes are allowed again at once")
	f.add(&share, "share", "", "add the tables to a database that has tables of an application")
	asJSON := jsonFlag(f)
	f.configFlag()
	return func(ctx context.Context, args []string) (err error) {
		if err := noArgs(args); err != nil {
			return err
		}
		s := &moveSettings{fenceAtMost: time.Duration(fence), dryRun: bool(dryRun), share: bool(share), asJSON: bool(*asJSON)}
		if s.from, err = parseDatabase(string(*database)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.from.close()) }()
		if err := s.from.openExisting(ctx); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.from.store.Close()) }()
		if abort {
			return s.abort(ctx, newPrinter(a), to != "" || bool(dryRun))
		}
		if to == "" {
			return usagef("--to is missing: the database to move to, such as postgres://counterfoil@db/counterfoil")
		}
		if s.fenceAtMost < time.Second {
			return usagef("--fence-at-most %s: want at least 1s", s.fenceAtMost)
		}
		if s.to, err = parseTarget(string(to)); err != nil {
			return err
		}
		if toSessions != "" {
			if s.sessions, err = parseSessions(string(toSessions)); err != nil {
				return usagef("%s", strings.Replace(err.Error(), "--sessions", "--to-sessions", 1))
			}
		}
		if s.to.String() == s.from.String() {
			return usagef("--to is the database to move from: name another")
		}
		defer func() { err = errors.Join(err, s.to.close()) }()
		return s.run(ctx, a)
	}
}

// anywhere names the database for whoever reads it later, in another folder.
func (d *database) anywhere() string {
	if path, err := filepath.Abs(d.path); d.isSQLite() && err == nil {
		return "sqlite:" + path
	}
	return d.String()
}

// parseTarget is parseDatabase for the flag --to.
func parseTarget(value string) (*database, error) {
	d, err := parseDatabase(value)
	if usage, ok := errors.AsType[*usageError](err); ok {
		return nil, usagef("%s", strings.Replace(usage.problem, "--database", "--to", 1))
	}
	return d, err
}

// openExisting connects to a database whose tables are there, without asking
// whether it can be used.
func (d *database) openExisting(ctx context.Context) error {
	if d.isSQLite() {
		found, err := d.checkFile()
		if err != nil {
			return err
		}
		if !found {
			return d.fail(errors.New("there is no such file"))
		}
	}
	missing, err := d.missing(ctx)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return d.fail(errors.New("its tables are missing, or older than this program: update its servers first, or run counterfoil migrate"))
	}
	return d.connect()
}

func (s *moveSettings) abort(ctx context.Context, p *printer, more bool) error {
	if more {
		return usagef("--abort goes with --database alone")
	}
	lifted, err := s.from.store.AbortMove(ctx)
	if err != nil {
		return s.from.fail(plainMove(err))
	}
	if s.asJSON {
		return p.json(map[string]any{"database": s.from.String(), "aborted": lifted})
	}
	if !lifted {
		p.printf("%s refuses nothing: no move has got that far.\n", s.from)
		return nil
	}
	p.printf("%s takes writes again. What was copied stays in the other database, which cannot be used: drop it, or move again.\n", s.from)
	return nil
}

// plainMove leaves out what a person need not read.
func plainMove(err error) error {
	if moved, ok := errors.AsType[*sqlstore.MoveError](err); ok {
		return moved
	}
	return err
}

func (s *moveSettings) run(ctx context.Context, a *app) (err error) {
	if err := s.openTarget(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.to.store.Close()) }()
	m := sqlstore.NewMove(s.from.store, s.to.store)
	m.Source, m.Target, m.FenceAtMost = s.from.anywhere(), s.to.anywhere(), s.fenceAtMost
	if s.dryRun {
		return s.plan(ctx, newPrinter(a), m)
	}
	if s.sessions != nil {
		redis, err := redisstore.OpenImporter(ctx, s.sessions.option, redisstore.Logger(slog.New(slog.DiscardHandler)))
		if err != nil {
			return &databaseError{s.sessions.String(), err}
		}
		defer redis.Close()
		m.Sessions = sessionTarget{redis}
	}
	show := newMoveProgress(a)
	m.Progress = show.hear
	report, err := m.Run(ctx)
	show.end()
	if err != nil {
		return s.explain(ctx, err)
	}
	return s.told(newPrinter(a), &report)
}

func (s *moveSettings) openTarget(ctx context.Context) error {
	if s.to.isSQLite() && s.dryRun {
		found, err := s.to.checkFile()
		if err != nil {
			return err
		}
		if !found {
			return s.to.fail(errors.New("--dry-run looks at a database that is there: make the file with counterfoil migrate"))
		}
	}
	if s.to.isSQLite() {
		if err := s.to.makeFile(); err != nil {
			return err
		}
	}
	if err := s.to.connect(); err != nil {
		return err
	}
	if s.share {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := s.to.refuseForeign(ctx); err != nil {
		return fmt.Errorf("%s", strings.ReplaceAll(err.Error(), "let counterfoil migrate --share add tables to this one", "give --share to add tables to this one"))
	}
	return nil
}

// sessionTarget is a Redis that takes the sessions.
type sessionTarget struct{ *redisstore.Importer }

func (sessionTarget) Sum(s counterfoil.Session) ([sha256.Size]byte, error) { return redisstore.Sum(s) }

// explain says what became of the old database.
func (s *moveSettings) explain(ctx context.Context, err error) error {
	ended := ctx.Err() != nil
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTimeout)
	defer cancel()
	state, stateErr := s.from.store.MoveState(look)
	switch {
	case stateErr != nil:
		return errors.Join(err, fmt.Errorf("whether %s takes writes is not known: run counterfoil move again, or with --abort: %w", s.from, stateErr))
	case state.Role == sqlstore.MoveSource && state.MovedAt.IsZero():
		return errors.Join(err, fmt.Errorf("%s still refuses writes: run counterfoil move again, or with --abort", s.from))
	case state.Role == "" && ended:
		return fmt.Errorf("interrupted: nothing was switched, servers go on with %s; run it again to go on", s.from)
	}
	return plainMove(err)
}

func (s *moveSettings) plan(ctx context.Context, p *printer, m *sqlstore.Move) error {
	plan, err := m.Plan(ctx)
	if err != nil {
		return plainMove(err)
	}
	if s.asJSON {
		tables := map[string]int64{}
		for _, t := range plan.Tables {
			tables[t.Name] = t.Rows
		}
		problems := plan.Problems
		if problems == nil {
			problems = []string{}
		}
		err = p.json(map[string]any{"from": m.Source, "to": m.Target, "tables": tables, "rows": plan.Rows, "problems": problems,
			"estimated_seconds": plan.Estimated.Seconds(), "fence_seconds": (2 * plan.Read).Seconds()})
	} else {
		p.printf("from  %s\nto    %s\n\n", printable(m.Source), printable(m.Target))
		rows := [][]cell{{text("TABLE"), text("ROWS")}}
		for _, t := range plan.Tables {
			rows = append(rows, []cell{text(t.Name), text(grouped(t.Rows))})
		}
		p.table(rows)
		p.printf("\nIt would take about %s; writes would be refused for about %s at the end. Nothing was changed.\n",
			roughly(max(plan.Estimated, time.Second)), roughly(max(2*plan.Read, 50*time.Millisecond)))
		for _, problem := range plan.Problems {
			p.printf("%s %s\n", p.paint(bad, "Problem:"), printable(problem))
		}
	}
	if err == nil && len(plan.Problems) > 0 {
		err = fmt.Errorf("%d problems stand in the way", len(plan.Problems))
		if len(plan.Problems) == 1 {
			err = errors.New("one problem stands in the way")
		}
	}
	return err
}

// told says what was done, and what to do next.
func (s *moveSettings) told(p *printer, r *sqlstore.MoveReport) error {
	if s.asJSON {
		tables := r.Tables
		if tables == nil {
			tables = []sqlstore.MovedTable{}
		}
		return p.json(map[string]any{"from": s.from.String(), "to": s.to.String(), "tables": tables, "passes": r.Passes, "changed": r.Changed,
			"fences": r.Fences, "fence_seconds": r.Fenced.Seconds(), "seconds": r.Took.Seconds(), "finished_earlier_run": r.Finished})
	}
	if r.Finished {
		p.printf("%s An earlier run had switched off %s; %s is on now.\n", p.paint(good, "Done."), s.from, s.to)
	} else {
		rows := [][]cell{{text("TABLE"), text("ROWS"), text("SHA-256, both sides")}}
		for _, t := range r.Tables {
			sum := "in " + s.sessionsName()
			if t.SHA256 != "" {
				sum = t.SHA256[:16]
			}
			rows = append(rows, []cell{text(t.Name), text(grouped(t.Rows)), styled(dim, sum)})
		}
		p.table(rows)
		sessions := ""
		if s.sessions != nil {
			sessions = ", the sessions are in " + s.sessions.String()
		}
		p.printf("\n%s Everything is in %s%s, equal row by row. It took %s; writes were refused for %s.\n",
			p.paint(good, "Done."), s.to, sessions, roughly(r.Took), roughly(r.Fenced))
	}
	p.printf("\nNext: start servers on the new database, with the seal of the old ones (the keys are sealed with it):\n\n")
	sessions := ""
	if s.sessions != nil {
		sessions = " --sessions '" + s.sessions.String() + "'"
	}
	p.printf("  counterfoil serve --database '%s'%s%s …\n", s.to, sessions, s.sealHint())
	p.printf("\nand send traffic there. Servers on %s answer 503 from now on: stop them. Keep the old database\nuntil all runs as it should, then delete it: it holds a copy of every session.\n", s.from)
	return nil
}

func (s *moveSettings) sessionsName() string {
	if s.sessions == nil {
		return s.to.String()
	}
	return s.sessions.String()
}

// sealHint is the seal that the new servers need.
func (s *moveSettings) sealHint() string {
	if file := s.from.path + ".seal"; s.from.isSQLite() {
		if _, err := os.Stat(file); err == nil {
			return " --seal-file '" + file + "'"
		}
	}
	return " --seal-file FILE"
}

// grouped writes a number with its thousands apart.
func grouped(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
