package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// Journal is for a store that keeps the sessions of this database elsewhere
// (package redisstore). Subjects and the feed log stay here and are the truth:
// what ends a session or changes a subject is committed here first, with a
// [Fact] that the other store is told after that, as often as need be.
type Journal struct {
	*Store
	in engine
}

// Fact is something that the store of the sessions has to know.
type Fact struct {
	No      int64                // 0: not written down
	Ref     string               // the session's ID, or the subject's
	End     *counterfoil.End     // the session ended
	Subject *counterfoil.Subject // the subject as it became; SignedOutBelow = Epoch: it was signed out by this
	Keep    *counterfoil.Keep    // the session that goes on above that sign-out
}

// Member is a session to be ended, as the store of the sessions knows it.
type Member struct {
	ID, Subject string
	Epoch0      int64
	Ended       bool // by its own row
}

// Kept is a session that is to be kept, likewise. The zero Kept has ended or is not there.
type Kept struct {
	Subject string
	Epoch0  int64
	Live    bool
}

// Endings is what [Journal.End] did.
type Endings struct {
	Changed     bool // the first was ended by this call
	Revocations []counterfoil.Revocation
	Facts       []Fact // also of those that had ended already
}

// ErrSessionsHere says that the database keeps sessions of its own.
var ErrSessionsHere = errors.New("the database keeps sessions of its own: run counterfoil move to take them elsewhere")

// Journal makes the store write down facts, from now on, and returns the
// journal. Call it before [Store.Open]. judge reads a session that a change of
// a user wants to keep.
func (s *Store) Journal(judge func(ctx context.Context, sid string) (Kept, error)) *Journal {
	s.judge = judge
	return &Journal{s, s.engine}
}

// journaled says that sessions are kept elsewhere.
func (s *Store) journaled() bool { return s.judge != nil }

// In returns the journal inside the application's own transaction.
func (j *Journal) In(tx *sql.Tx) (*Journal, error) {
	if tx == nil {
		return nil, errors.New("sqlstore: InTx: tx is nil")
	}
	return &Journal{j.Store, join(&j.compiler, tx)}, nil
}

// Claim notes where the sessions are kept, unless that is known, and returns
// what is noted. [ErrSessionsHere] where there are sessions in the database.
func (j *Journal) Claim(ctx context.Context, home string) (is string, err error) {
	err = j.in.tx(ctx, func(on runner) error {
		_, err := on.exec(ctx, `UPDATE {meta} SET sessions_in = $1 WHERE sessions_in IS NULL AND NOT EXISTS (SELECT 1 FROM {sessions})`, home)
		if err != nil {
			return err
		}
		found, err := one(ctx, on, func(r *row) { is = r.text() }, `SELECT sessions_in FROM {meta}`)
		if err == nil && !found {
			_, err = j.now(ctx, on) // says what is wrong
		}
		return err
	})
	if err == nil && is == "" {
		err = ErrSessionsHere
	}
	if err != nil {
		return "", failed("note where sessions are kept", err)
	}
	return is, nil
}

// Home returns where the sessions are noted to be kept, empty for nowhere else.
func (j *Journal) Home(ctx context.Context) (home string, err error) {
	err = j.in.view(ctx, func(on runner) error {
		_, err := one(ctx, on, func(r *row) { home = r.text() }, `SELECT sessions_in FROM {meta}`)
		return err
	})
	if err != nil {
		return "", failed("read where sessions are kept", err)
	}
	return home, nil
}

// refuseElsewhere keeps a store without a journal from a database whose
// sessions are kept elsewhere.
func (s *Store) refuseElsewhere(ctx context.Context, on runner) error {
	if s.journaled() || s.aside {
		return nil
	}
	var home string
	_, err := one(ctx, on, func(r *row) { home = r.text() }, `SELECT sessions_in FROM {meta}`)
	if err == nil && home != "" {
		err = fmt.Errorf("%w in %s: give --sessions", ErrSessionsElsewhere, home)
	}
	return err
}

// ErrSessionsElsewhere says that the sessions of a database are kept in
// another store, without which it cannot be used.
var ErrSessionsElsewhere = errors.New("the sessions of this database are kept")

// Ensure returns a subject's row and makes it where it is missing. With orphans
// there are sessions of the subject: where the row is missing, the database was
// restored from a time before they began, and they end.
func (j *Journal) Ensure(ctx context.Context, id string, orphans bool) (counterfoil.Subject, error) {
	var sub subject
	read := func(on runner) (found bool, err error) {
		return one(ctx, on, func(r *row) { sub = readSubject(r) }, `SELECT `+subjectColumns+` FROM {subjects} u WHERE u.id = $1`, id)
	}
	var found bool
	err := j.in.view(ctx, func(on runner) (err error) {
		found, err = read(on)
		return err
	})
	if err == nil && !found {
		err = j.in.tx(ctx, func(on runner) error {
			if err := j.makeSubject(ctx, on, id); err != nil {
				return err
			}
			if orphans {
				if err := j.endOrphans(ctx, on, id); err != nil {
					return err
				}
			}
			_, err := read(on)
			return err
		})
	}
	if err != nil {
		return counterfoil.Subject{}, failed("read subject", err)
	}
	return sub.Subject, nil
}

// lock locks a subject's row, which has the transaction draw its number, and reads it.
func (j *Journal) lock(ctx context.Context, on runner, id string) (sub subject, err error) {
	query := `SELECT ` + subjectColumns + ` FROM {subjects} u WHERE u.id = $1{lock}`
	found, err := one(ctx, on, func(r *row) { sub = readSubject(r) }, query, id)
	if found || err != nil {
		return sub, err
	}
	if err := j.makeSubject(ctx, on, id); err != nil {
		return sub, err
	}
	_, err = one(ctx, on, func(r *row) { sub = readSubject(r) }, query, id)
	return sub, err
}

// End ends those of the sessions that have not ended, one entry of the feed
// each. With root, nothing is done unless the first is ended by this call.
func (j *Journal) End(ctx context.Context, family []Member, root bool, end counterfoil.End, retain time.Duration) (done Endings, err error) {
	done, ended, err := j.endAtOnce(ctx, family, end, retain)
	if err == nil && !ended {
		err = j.in.tx(ctx, func(on runner) (err error) {
			done, err = j.end(ctx, on, family, root, end, retain)
			return err
		})
	}
	if err != nil {
		return Endings{}, failed("end session", err)
	}
	return done, nil
}

func (j *Journal) end(ctx context.Context, on runner, family []Member, root bool, end counterfoil.End, retain time.Duration) (done Endings, err error) {
	subjects := map[string]*counterfoil.Subject{}
	ids := make([]string, len(family))
	for i, m := range family {
		subjects[m.Subject], ids[i] = nil, m.ID
	}
	names := make([]string, 0, len(subjects))
	for name := range subjects {
		names = append(names, name)
	}
	slices.Sort(names) // everybody locks in this order
	for _, name := range names {
		sub, err := j.lock(ctx, on, name)
		if err != nil {
			return done, err
		}
		subjects[name] = &sub.Subject
	}
	// From here on nobody else ends or keeps any of them.
	ended, kept, err := j.known(ctx, on, ids)
	if err != nil {
		return done, err
	}
	end.At, err = j.instant(ctx, on)
	if err != nil {
		return done, err
	}
	for i, m := range family {
		sub := subjects[m.Subject]
		fact, over := ended[m.ID]
		switch {
		case over:
			done.Facts = append(done.Facts, fact)
		case m.Ended:
			over = true
		case max(m.Epoch0, kept[m.ID]) < sub.SignedOutBelow:
			over = true
			done.Facts = append(done.Facts, Fact{Ref: sub.ID, Subject: sub})
		default:
			e := end
			fact := Fact{Ref: m.ID, End: &e}
			entry, added, err := j.noteEnd(ctx, on, &fact, retain)
			if err != nil {
				return done, err
			}
			if over = !added; added {
				done.Revocations = append(done.Revocations, entry)
				done.Changed = done.Changed || i == 0
			}
			done.Facts = append(done.Facts, fact)
		}
		if root && i == 0 && over {
			break
		}
	}
	return done, nil
}

// known reads the ends of sessions, and the epochs with which they were kept.
func (j *Journal) known(ctx context.Context, on runner, ids []string) (ended map[string]Fact, kept map[string]int64, err error) {
	ended, kept = map[string]Fact{}, map[string]int64{}
	list, err := encode(ids)
	if err != nil {
		return nil, nil, err
	}
	err = each(ctx, on, func(r *row) error {
		sid := r.text()
		fact, err := readFact(r)
		switch {
		case err != nil:
		case fact.End != nil:
			ended[fact.Ref] = fact
		case fact.Subject != nil:
			kept[sid] = max(kept[sid], fact.Subject.Epoch)
		}
		return err
	}, `SELECT NULL, `+factColumns+` FROM {journal} WHERE kind = 's' AND ref IN (`+j.among()+`)
		UNION ALL SELECT kept, `+factColumns+` FROM {journal} WHERE kept IN (`+j.among()+`)`, list)
	return ended, kept, err
}

// among selects the elements of the list $1.
func (s *Store) among() string {
	if s.dialect == sqlite {
		return `SELECT value FROM json_each($1)`
	}
	return `SELECT json_array_elements_text($1::json)`
}

// Advance carries out an Advance. kept is how the store of the sessions knows
// the session that a.Keep names. The kept session is not in what is returned,
// but Except of the entry tells whether it was kept.
func (j *Journal) Advance(ctx context.Context, a counterfoil.Advance, kept Kept) (done counterfoil.Advanced, fact Fact, err error) {
	if a.Subject == "" {
		return done, fact, failed("advance subject", errors.New("Subject must not be empty"))
	}
	done, fact, advanced, err := j.advanceAtOnce(ctx, a)
	if err == nil && !advanced {
		err = j.in.tx(ctx, func(on runner) (err error) {
			done, fact, err = j.advance(ctx, on, a, kept)
			return err
		})
	}
	if err != nil {
		return counterfoil.Advanced{}, Fact{}, failed("advance subject", err)
	}
	return done, fact, nil
}

func (j *Journal) advance(ctx context.Context, on runner, a counterfoil.Advance, kept Kept) (done counterfoil.Advanced, fact Fact, err error) {
	sub, err := j.lock(ctx, on, a.Subject)
	if err != nil {
		return done, fact, err
	}
	if !a.SignOut {
		a.Keep = nil
	}
	if a.Keep != nil {
		ended, raised, err := j.known(ctx, on, []string{a.Keep.ID})
		if err != nil {
			return done, fact, err
		}
		_, over := ended[a.Keep.ID]
		if over || !kept.Live || kept.Subject != sub.ID || max(kept.Epoch0, raised[a.Keep.ID]) < sub.SignedOutBelow {
			a.Keep = nil
		}
	}
	now, err := j.instant(ctx, on)
	if err != nil {
		return done, fact, err
	}
	sub.Epoch++
	entry := counterfoil.Revocation{Kind: revoked.Subject, ID: sub.ID, StaleBelow: sub.Epoch}
	if a.SignOut {
		sub.SignedOutBelow, entry.RevokedBelow = sub.Epoch, sub.Epoch
		sub.SignedOut = &counterfoil.End{Reason: a.End.Reason, Actor: a.End.Actor, At: now}
	}
	if a.Rights != nil {
		sub.Rights = *a.Rights
	}
	if a.Keep != nil {
		entry.Except = a.Keep.ID
	}
	var none any
	if err := j.writeSubject(ctx, on, &sub, none); err != nil {
		return done, fact, err
	}
	if err := j.report(ctx, on, &entry, a.Retain); err != nil {
		return done, fact, err
	}
	done.Subject, done.Revocation = sub.Subject, entry
	fact = Fact{Ref: sub.ID, Subject: &sub.Subject, Keep: a.Keep}
	return done, fact, j.note(ctx, on, &fact)
}

// judged asks about the session that an Advance wants to keep, before the
// transaction: no lock waits for the store of the sessions.
func (s *Store) judged(ctx context.Context, a *counterfoil.Advance) (Kept, error) {
	if !s.journaled() || a == nil || a.Keep == nil {
		return Kept{}, nil
	}
	return s.judge(ctx, a.Keep.ID)
}

// advanceWith is advance wherever the sessions are.
func (s *Store) advanceWith(ctx context.Context, on runner, a counterfoil.Advance, kept Kept) (counterfoil.Advanced, error) {
	if !s.journaled() {
		return s.advance(ctx, on, a)
	}
	done, _, err := (&Journal{s, s.engine}).advance(ctx, on, a, kept)
	return done, err
}

// noteSubject writes down a subject's row as it is now, where there is a journal.
func (s *Store) noteSubject(ctx context.Context, on runner, id string) error {
	if !s.journaled() {
		return nil
	}
	var sub subject
	_, err := one(ctx, on, func(r *row) { sub = readSubject(r) }, `SELECT `+subjectColumns+` FROM {subjects} u WHERE u.id = $1`, id)
	if err != nil {
		return err
	}
	return (&Journal{s, s.engine}).note(ctx, on, &Fact{Ref: id, Subject: &sub.Subject})
}

// note writes down a fact. The number stays 0 where it is an end that is there already.
func (j *Journal) note(ctx context.Context, on runner, f *Fact) error {
	kind, kept := "u", ""
	if f.End != nil {
		kind = "s"
	}
	if f.Keep != nil {
		kept = f.Keep.ID
	}
	detail, err := json.Marshal(f.detail())
	if err != nil {
		return err
	}
	_, err = one(ctx, on, func(r *row) { f.No = r.int() },
		`INSERT INTO {journal} (kind, ref, kept, detail) VALUES ($1, $2, $3, $4)
			ON CONFLICT (ref) WHERE kind = 's' DO NOTHING RETURNING no`, kind, f.Ref, textOrNull(kept), string(detail))
	return err
}
