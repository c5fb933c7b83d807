package sqlstore

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// What shares statements on PostgreSQL: reads of sessions, sign-ins, and ends
// of single sessions. A statement for many locks only rows that nobody else
// holds: it would make everybody wait for one, and could hold what that one
// waits for. Whoever is left out goes alone.

// lookup is one session to be read.
type lookup struct {
	sid   string
	found bool
	snap  counterfoil.Snapshot
	own   session
}

// ask reads one session.
func (p *pool) ask(ctx context.Context, sid string) (counterfoil.Snapshot, session, error) {
	if strings.ContainsRune(sid, 0) || !utf8.ValidString(sid) {
		// PostgreSQL would refuse the statement, and others with it.
		return counterfoil.Snapshot{}, session{}, counterfoil.ErrNotFound
	}
	l, err := p.reads.do(ctx, lookup{sid: sid})
	if err == nil && !l.found {
		err = counterfoil.ErrNotFound
	}
	return l.snap, l.own, err
}

// gathered is written so that PostgreSQL looks up one row after the other by
// its key, keeps the plan (it would make a new one for each length of a list
// behind ANY, which takes longer than the reads), and never reads all subjects.
const gathered = `SELECT ` + snapshotColumns + ` FROM unnest(string_to_array($1, ',')) q
	CROSS JOIN LATERAL (SELECT * FROM {sessions} x WHERE x.sid = q OFFSET 0) s
	CROSS JOIN LATERAL (SELECT * FROM {subjects} x WHERE x.no = s.subject_no OFFSET 0) u`

// readGathered reads sessions by one statement.
func (s *sessions) readGathered(ctx context.Context, calls []*call[lookup]) error {
	return s.in.view(ctx, func(on runner) error {
		if len(calls) == 1 {
			l := &calls[0].it
			snap, own, err := s.readSnapshot(ctx, on, l.sid)
			if errors.Is(err, counterfoil.ErrNotFound) {
				return nil
			}
			l.snap, l.own, l.found = snap, own, err == nil
			return err
		}
		sids := make([]string, len(calls))
		for i, c := range calls {
			sids[i], c.it.found, c.err = c.it.sid, false, nil
		}
		return each(ctx, on, func(r *row) error {
			sid := r.text()
			r.next = 0
			for _, c := range calls {
				if c.it.sid != sid {
					continue
				}
				// Each gets its own: who asked twice shares no memory. A row
				// that cannot be read is the fault of one session.
				r.next, r.err = 0, nil
				c.it.snap, c.it.own = s.snapshotOf(r)
				c.it.found, c.err = true, r.err
			}
			r.err = nil
			return nil
		}, gathered, strings.Join(sids, ","))
	})
}

// insertion is one session to be added that is derived from none.
type insertion struct {
	add    counterfoil.Session
	values []any // of its row
	added  bool
	snap   counterfoil.Snapshot
}

// insertGathered adds the sessions of subjects that have a row, are not
// disabled, and are not being changed. As in insertPostgreSQL, each subject's
// row is locked against any Advance until commit.
func (s *sessions) insertGathered(ctx context.Context, calls []*call[insertion]) error {
	records := make([]record, len(calls))
	for i, c := range calls {
		add := &c.it.add
		records[i] = append(record{add.Subject, add.ID, add.ClientID, add.CreatedAt.UnixMilli()}, c.it.values...)
	}
	forget := func() {
		for _, c := range calls {
			c.it.added, c.err = false, nil
		}
	}
	return share(ctx, s.in, forget, func(on runner) error {
		return each(ctx, on, func(r *row) error {
			sid, epoch0 := r.text(), r.int()
			for _, c := range calls {
				if c.it.add.ID != sid {
					continue
				}
				sub := readSubject(r)
				c.it.snap.Subject = sub.Subject
				c.it.snap.KeyVersion, c.it.snap.Now = r.int(), s.clockOr(r)
				add := c.it.add
				add.Epoch0 = epoch0
				if c.it.snap.Session, c.err = copied(add, c.it.values); c.err == nil {
					c.err = r.err
				}
				c.it.added, r.err = true, nil
				break
			}
			return nil
		}, `WITH q AS MATERIALIZED (
				SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[],
					$5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bytea[],
					$11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::bytea[])
				AS q (subject, sid, client_id, created_at, `+changeableColumns+`)
			), u AS MATERIALIZED (
				SELECT q.sid AS of, u.* FROM q CROSS JOIN LATERAL (
					SELECT `+subjectColumns+` FROM {subjects} u WHERE u.id = q.subject FOR SHARE OF u SKIP LOCKED
				) u
			), added AS (
				INSERT INTO {sessions} (sid, client_id, created_at, subject_no, `+changeableColumns+`)
				SELECT q.sid, q.client_id, q.created_at, u.no, q.last_active_at, q.idle_ms, q.expires_at, q.auth_time,
					CASE WHEN q.epoch0 = 0 THEN u.epoch ELSE least(q.epoch0, u.epoch) END,
					q.secret_hash, q.amr, q.user_agent, q.ip, q.roles, q.scope, q.extra, q.binding
				FROM q JOIN u ON u.of = q.sid
				WHERE NOT u.disabled AND (q.epoch0 = 0 OR q.epoch0 >= u.signed_out_below) AND EXISTS (SELECT 1 FROM {meta})
				RETURNING sid, epoch0
			)
			SELECT added.sid, added.epoch0, `+subjectColumns+`, (SELECT key_version FROM {meta}), {clock}
			FROM added JOIN u ON u.of = added.sid`,
			columns(records, textKind, textKind, textKind, integerKind,
				integerKind, integerKind, integerKind, integerKind, integerKind, bytesKind,
				textKind, textKind, textKind, textKind, textKind, textKind, bytesKind)...)
	})
}

// ending is one session to be ended.
type ending struct {
	q     counterfoil.EndRequest
	ended counterfoil.Ended // Changed unless it was left out
}

// endGathered ends the sessions that none was derived from and that nobody is
// changing. A row is found again by its place: it is locked by then. The condition
// on q is always true; by it PostgreSQL expects one row, and never reads all
// sessions of a table that was small when the plan was made.
func (s *sessions) endGathered(ctx context.Context, calls []*call[ending]) error {
	var records []record
	first := map[string]*call[ending]{} // a session ends once
	for _, c := range calls {
		q := &c.it.q
		if first[q.ID] != nil {
			continue
		}
		first[q.ID] = c
		records = append(records, record{q.ID, q.Subject, string(q.End.Reason), q.End.Actor, q.Retain.Milliseconds()})
	}
	forget := func() {
		for _, c := range first {
			c.it.ended, c.err = counterfoil.Ended{}, nil
		}
	}
	return share(ctx, s.in, forget, func(on runner) error {
		return each(ctx, on, func(r *row) error {
			own := readSession(r)
			own.Subject = r.text()
			entry := counterfoil.Revocation{Kind: revoked.Session, ID: own.ID, Position: r.int(), Until: r.time()}
			if c := first[own.ID]; c != nil {
				c.it.ended = counterfoil.Ended{Session: own.Session, Changed: true, Revocations: []counterfoil.Revocation{entry}}
				c.err, r.err = r.err, nil
			}
			return nil
		}, `WITH t AS MATERIALIZED (
				SELECT {now} AS now, (SELECT retain_ms FROM {meta}) AS retain
			), q AS MATERIALIZED (
				SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[]) AS q (sid, subject, reason, actor, retain)
				WHERE sid || '' = sid
			), held AS MATERIALIZED (
				SELECT q.*, o.place, o.id FROM q CROSS JOIN LATERAL (
					SELECT s.ctid AS place, u.id FROM {sessions} s
					CROSS JOIN LATERAL (SELECT * FROM {subjects} x WHERE x.no = s.subject_no OFFSET 0) u
					WHERE s.sid = q.sid AND (q.subject = '' OR u.id = q.subject)
						AND s.ended_at IS NULL AND s.epoch0 >= u.signed_out_below AND NOT s.derived
					FOR UPDATE OF s SKIP LOCKED
				) o
			), s AS (
				UPDATE {sessions} s SET ended_at = t.now, end_reason = held.reason, end_actor = held.actor, rev = s.rev + 1
				FROM held, t WHERE s.ctid = held.place AND s.sid = held.sid AND s.ended_at IS NULL AND NOT s.derived
				RETURNING `+sessionColumns+`, held.id, held.retain
			), f AS (
				INSERT INTO {feed} (kind, ref, until) SELECT 's', s.sid, t.now + greatest(s.retain, t.retain) FROM s, t RETURNING id, ref, until
			)
			SELECT `+sessionColumns+`, s.id, f.id, f.until FROM s JOIN f ON f.ref = s.sid`,
			append([]any{s.clockArgument()}, columns(records, textKind, textKind, textKind, textKind, integerKind)...)...)
	})
}

// share runs a statement for several calls. Its rows come before its commit:
// where that fails, forget takes back what they said. Where PostgreSQL refused
// the statement, nothing was done: each goes alone, and only those whose fault it
// was fail.
func share(ctx context.Context, in engine, forget func(), fn func(runner) error) error {
	err := in.once(ctx, func(on runner) error {
		forget()
		return fn(on)
	})
	if err == nil {
		return nil
	}
	forget()
	if sqlState(err) != "" && !lost(err) && !unavailable(err) {
		return nil
	}
	return err
}

// columns are the records turned on their side, an array for each column.
func columns(records []record, kinds ...kind) []any {
	lists := make([]any, len(kinds))
	for i, k := range kinds {
		lists[i], _ = array(records, i, k)
	}
	return lists
}
