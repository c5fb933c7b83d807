package sqlstore

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// On PostgreSQL what happens most is one statement. It does nothing at all
// where it cannot be sure; then the statements of a transaction are asked,
// each of which sees what was committed while it waited for the lock. No table
// is joined of which PostgreSQL could expect many rows: it would compile the plan.

// endAtOnce is endOne where that can be enough. The statement may be repeated:
// a session ends once.
func (j *Journal) endAtOnce(ctx context.Context, family []Member, end counterfoil.End, retain time.Duration) (done Endings, found bool, err error) {
	if j.dialect != postgresql || len(family) != 1 || family[0].Ended {
		return done, false, nil
	}
	if p, ok := j.in.(*pool); ok {
		e, err := p.journal.do(ctx, journalEnding{member: family[0], end: end, retain: retain})
		if e.done.Changed || err != nil && !lost(err) {
			return e.done, e.done.Changed, err
		}
	}
	err = j.in.again(ctx, func(on runner) (err error) {
		done, found, err = j.endOne(ctx, on, family[0], end, retain)
		return err
	})
	return done, found, err
}

// journalEnding is an end that shares a statement.
type journalEnding struct {
	member Member
	end    counterfoil.End
	retain time.Duration
	done   Endings // Changed unless it was left out
}

// endGathered is endOne for many. Those whose subject is being changed are left out.
func (j *Journal) endGathered(ctx context.Context, calls []*call[journalEnding]) error {
	var records []record
	first := map[string]*call[journalEnding]{} // a session ends once
	for _, c := range calls {
		m := c.it.member
		if first[m.ID] != nil {
			continue
		}
		detail, err := untimed(c.it.end)
		if err != nil {
			c.err = err
			continue
		}
		first[m.ID] = c
		records = append(records, record{m.ID, m.Subject, m.Epoch0, detail, c.it.retain.Milliseconds()})
	}
	forget := func() {
		for _, c := range first {
			c.it.done, c.err = Endings{}, nil
		}
	}
	return share(ctx, j.in, forget, func(on runner) error {
		return each(ctx, on, func(r *row) error {
			fact := Fact{Ref: r.text(), No: r.int()}
			entry := counterfoil.Revocation{Kind: revoked.Session, ID: fact.Ref, Position: r.int(), Until: r.time()}
			at := r.time()
			if c := first[fact.Ref]; c != nil {
				end := c.it.end
				end.At = at
				fact.End = &end
				c.it.done = Endings{Changed: true, Revocations: []counterfoil.Revocation{entry}, Facts: []Fact{fact}}
				c.err, r.err = r.err, nil
			}
			return nil
		}, `WITH t AS MATERIALIZED (
				SELECT {now} AS now, (SELECT retain_ms FROM {meta}) AS retain WHERE EXISTS (SELECT 1 FROM {meta})
			), q AS MATERIALIZED (
				SELECT * FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::bigint[]) AS q (sid, subject, epoch0, detail, retain)
			), locked AS MATERIALIZED (
				SELECT q.*, u.below FROM q CROSS JOIN LATERAL (
					SELECT u.signed_out_below AS below FROM {subjects} u WHERE u.id = q.subject FOR NO KEY UPDATE OF u SKIP LOCKED
				) u
			), j AS (
				INSERT INTO {journal} (kind, ref, detail)
				SELECT 's', l.sid, l.detail || t.now::text || '}}' FROM locked l CROSS JOIN t WHERE l.epoch0 >= l.below
				ON CONFLICT (ref) WHERE kind = 's' DO NOTHING
				RETURNING no, ref
			), f AS (
				INSERT INTO {feed} (kind, ref, until)
				SELECT 's', j.ref, t.now + greatest(l.retain, t.retain) FROM j JOIN locked l ON l.sid = j.ref CROSS JOIN t
				RETURNING id, ref, until
			)
			SELECT j.ref, j.no, f.id, f.until, t.now FROM j JOIN f ON f.ref = j.ref CROSS JOIN t`,
			append([]any{j.clockArgument()}, columns(records, textKind, textKind, integerKind, textKind, integerKind)...)...)
	})
}

// untimed is the detail of an end up to its time, which is the statement's: it
// is the last of the fields.
func untimed(end counterfoil.End) (string, error) {
	end.At = time.UnixMilli(0)
	data, err := json.Marshal(factDetail{End: endDetail(&end)})
	return strings.TrimSuffix(string(data), `0}}`), err
}

// endOne ends a session without derived ones that was not signed out. What the
// locking CTE returns is current; the journal may have changed while it waited,
// unseen, which the unique index on its ends finds out. found is whether the
// session was ended.
func (j *Journal) endOne(ctx context.Context, on runner, m Member, end counterfoil.End, retain time.Duration) (done Endings, found bool, err error) {
	detail, err := untimed(end)
	if err != nil {
		return done, false, err
	}
	found, err = one(ctx, on, func(r *row) {
		fact := Fact{No: r.int(), Ref: m.ID}
		entry := counterfoil.Revocation{Kind: revoked.Session, ID: m.ID, Position: r.int(), Until: r.time()}
		end.At = r.time()
		fact.End = &end
		done = Endings{Changed: true, Revocations: []counterfoil.Revocation{entry}, Facts: []Fact{fact}}
	}, `WITH locked AS MATERIALIZED (
			SELECT u.signed_out_below AS below FROM {subjects} u WHERE u.id = $2 FOR NO KEY UPDATE OF u
		), t AS MATERIALIZED (
			SELECT locked.below, {now} AS now, greatest($6::bigint, (SELECT retain_ms FROM {meta})) AS retain
			FROM locked WHERE EXISTS (SELECT 1 FROM {meta})
		), j AS (
			INSERT INTO {journal} (kind, ref, detail)
			SELECT 's', $3::text, $5::text || t.now::text || '}}' FROM t WHERE $4::bigint >= t.below
			ON CONFLICT (ref) WHERE kind = 's' DO NOTHING
			RETURNING no, ref
		), f AS (
			INSERT INTO {feed} (kind, ref, until) SELECT 's', j.ref, t.now + t.retain FROM j CROSS JOIN t RETURNING id, until
		)
		SELECT j.no, f.id, f.until, t.now FROM j CROSS JOIN f CROSS JOIN t`,
		j.clockArgument(), m.Subject, m.ID, m.Epoch0, detail, retain.Milliseconds())
	return done, found, err
}

// advanceAtOnce is advanceOne where that can be enough.
func (j *Journal) advanceAtOnce(ctx context.Context, a counterfoil.Advance) (done counterfoil.Advanced, fact Fact, found bool, err error) {
	if j.dialect != postgresql || a.SignOut && a.Keep != nil {
		return done, fact, false, nil
	}
	err = j.in.once(ctx, func(on runner) (err error) {
		done, fact, found, err = j.advanceOne(ctx, on, a)
		return err
	})
	return done, fact, found, err
}

// advanceOne carries out an Advance that keeps no session, of a subject that
// has a row.
func (j *Journal) advanceOne(ctx context.Context, on runner, a counterfoil.Advance) (done counterfoil.Advanced, fact Fact, found bool, err error) {
	var rights counterfoil.Rights
	if a.Rights != nil {
		rights = *a.Rights
	}
	roles, scope, err := rightsValues(&rights)
	if err != nil {
		return done, fact, false, err
	}
	found, err = one(ctx, on, func(r *row) {
		sub := readSubject(r)
		done = counterfoil.Advanced{Subject: sub.Subject, Revocation: counterfoil.Revocation{
			Kind: revoked.Subject, ID: sub.ID, StaleBelow: sub.Epoch, Position: r.int(), Until: r.time()}}
		if a.SignOut {
			done.Revocation.RevokedBelow = sub.Epoch
		}
		fact = Fact{No: r.int(), Ref: sub.ID, Subject: &sub.Subject}
	}, `WITH locked AS MATERIALIZED (
			SELECT u.no FROM {subjects} u WHERE u.id = $2 FOR NO KEY UPDATE OF u
		), t AS MATERIALIZED (
			SELECT locked.no, {now} AS now, greatest($10::bigint, (SELECT retain_ms FROM {meta})) AS retain
			FROM locked WHERE EXISTS (SELECT 1 FROM {meta})
		), u AS (
			UPDATE {subjects} u SET epoch = u.epoch + 1,
				signed_out_below = CASE WHEN $3::boolean THEN u.epoch + 1 ELSE u.signed_out_below END,
				signed_out_at = CASE WHEN $3 THEN t.now ELSE u.signed_out_at END,
				signed_out_reason = CASE WHEN $3 THEN $4 ELSE u.signed_out_reason END,
				signed_out_actor = CASE WHEN $3 THEN $5 ELSE u.signed_out_actor END,
				roles = CASE WHEN $6::boolean THEN $7 ELSE u.roles END,
				scope = CASE WHEN $6 THEN $8 ELSE u.scope END,
				disabled = CASE WHEN $6 THEN $9::boolean ELSE u.disabled END
			FROM t WHERE u.no = t.no
			RETURNING `+subjectColumns+`
		), f AS (
			INSERT INTO {feed} (kind, ref, stale_below, revoked_below, until)
			SELECT 'u', u.id, u.epoch, CASE WHEN $3 THEN u.epoch ELSE 0 END, t.now + t.retain FROM u CROSS JOIN t
			RETURNING id, until
		), j AS (
			INSERT INTO {journal} (kind, ref, detail)
			SELECT 'u', u.id, json_build_object('subject', json_build_object('epoch', u.epoch, 'below', u.signed_out_below,
				'out', CASE WHEN u.signed_out_at IS NOT NULL THEN json_build_object('reason', coalesce(u.signed_out_reason, ''),
					'actor', coalesce(u.signed_out_actor, ''), 'at', u.signed_out_at) END,
				'roles', u.roles::json, 'scope', u.scope::json, 'disabled', u.disabled))::text FROM u
			RETURNING no
		)
		SELECT u.*, f.id, f.until, j.no FROM u CROSS JOIN f CROSS JOIN j`,
		j.clockArgument(), a.Subject, a.SignOut, string(a.End.Reason), a.End.Actor,
		a.Rights != nil, roles, scope, rights.Disabled, a.Retain.Milliseconds())
	return done, fact, found, err
}
