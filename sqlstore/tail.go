package sqlstore

import (
	"context"
	"database/sql"
	"math"
	"time"

	"github.com/counterfoil/counterfoil"
)

const (
	pollEvery = 10 * time.Millisecond
	pollPage  = 1000
	// pollTimeout ends a read over a connection that is gone.
	pollTimeout = 5 * time.Second

	gapPage  = 100
	gapsKept = 1 << 14
	gapsRead = 512
)

// tail is a [counterfoil.Tail] that asks the database again and again.
type tail struct {
	feed feed
	conn *sql.Conn // its own, so that it waits for nobody; nil: the pool is too small
	gone bool      // conn leads to a server that is of no use
	bell chan struct{}
	wait time.Duration // from the start of the last read
	at   time.Time     // when that was

	highest int64 // position up to which was read, but for the gaps
	missing gaps  // PostgreSQL only
	cut     int64 // where the log ended when it had gone back
	last    counterfoil.FeedBatch
	version int64 // SQLite's data_version of the last complete read
}

func (f feed) Tail(ctx context.Context, after int64) (counterfoil.Tail, error) {
	t := &tail{feed: f, highest: after, bell: make(chan struct{}, 1), missing: gaps{most: gapsKept, asked: gapsRead}}
	// With SQLite's writer, and another one for all the rest.
	const fewest = 3
	if most := f.db.Stats().MaxOpenConnections; most == 0 || most >= fewest {
		conn, err := f.db.Conn(ctx)
		if err != nil {
			return nil, failed("follow the feed log", err)
		}
		t.conn = conn
	}
	return t, nil
}

func (t *tail) Close() error {
	if t.conn == nil {
		return nil
	}
	conn := t.conn
	t.conn = nil
	if t.gone {
		return discard(conn)
	}
	return conn.Close()
}

func (t *tail) Wake() {
	select {
	case t.bell <- struct{}{}:
	default:
	}
}

func (t *tail) Next(ctx context.Context) (counterfoil.FeedBatch, error) {
	if err := t.pause(ctx); err != nil {
		return counterfoil.FeedBatch{}, err
	}
	t.at, t.wait = time.Now(), pollEvery
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	batch, err := t.read(ctx)
	if err != nil {
		return counterfoil.FeedBatch{}, failed("follow the feed log", err)
	}
	return batch, nil
}

// pause waits until t.wait after the last read began, or somebody wakes it.
func (t *tail) pause(ctx context.Context) error {
	left := time.Until(t.at.Add(t.wait))
	if left <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.bell:
	case <-timer.C:
	}
	return nil
}

// page is what one statement found.
type page struct {
	timeline, keyVersion int64
	retain               time.Duration
	position             int64 // the highest that was drawn
	oldest, next         int64 // transaction numbers: the oldest one open, and the next one
	history              history
	entries              []counterfoil.Revocation
	answers              []answer
	more                 bool
}

func (t *tail) read(ctx context.Context) (batch counterfoil.FeedBatch, err error) {
	var p page
	version := t.version
	err = t.feed.engine.view(ctx, func(on runner) (err error) {
		if t.conn != nil {
			on = direct{&t.feed.compiler, t.conn}
		}
		if t.feed.dialect == postgresql {
			p, err = t.readPostgreSQL(ctx, on)
			return err
		}
		// Not where the pool has to give a connection first: who has the last
		// one may be waiting for the writer.
		if file, ok := t.feed.engine.(*file); ok && t.conn != nil {
			file.writer.committing.Lock()
			defer file.writer.committing.Unlock()
		}
		// First this: what is committed between the two is then read twice.
		if version, err = t.dataVersion(ctx, on); err != nil || version == t.version && version != 0 {
			return err
		}
		p, err = t.readSQLite(ctx, on)
		return err
	})
	switch {
	case err != nil:
		return batch, err
	case version == t.version && version != 0:
		batch = t.last
		batch.ReadAt = t.at
		return batch, nil
	case p.timeline == 0:
		return batch, errNoMeta // what was read before stays in force, and grows old
	case p.history.standby():
		t.gone = true
		return batch, errStandby
	case p.history.changed():
		if err := t.feed.adopt(ctx, t.highest); err != nil {
			return batch, err
		}
		return t.read(ctx)
	case t.restored(&p):
		if t.highest > p.position && (t.last.Timeline == 0 || t.last.Timeline == p.timeline) {
			t.cut = max(p.position, 1)
		}
		t.highest, t.missing.list, t.version, t.last = 0, nil, 0, counterfoil.FeedBatch{}
		return t.read(ctx)
	}
	t.advance(&p)
	t.last = counterfoil.FeedBatch{Resolved: t.missing.resolved(t.highest), Timeline: p.timeline, KeyVersion: p.keyVersion, Retain: p.retain,
		Cut: max(t.cut, p.history.cut)}
	batch = t.last
	batch.Entries = p.entries
	if p.more {
		t.wait = 0
	} else {
		t.version, batch.ReadAt = version, t.at
	}
	return batch, nil
}

// restored says that the log is not the one that was read before. What this
// tail knows of it is worth nothing then.
func (t *tail) restored(p *page) bool {
	return t.highest > p.position || t.last.Timeline != 0 && t.last.Timeline != p.timeline
}

// advance takes note of what was read, and of what is missing between.
func (t *tail) advance(p *page) {
	t.missing.settle(p.answers, p.oldest)
	highest := p.position
	if p.more {
		highest = p.entries[len(p.entries)-1].Position
	}
	if t.feed.dialect == postgresql {
		low := t.highest + 1
		for _, e := range p.entries {
			if e.Position > t.highest {
				t.missing.add(low, e.Position-1, p.next)
				low = e.Position + 1
			}
		}
		t.missing.add(low, highest, p.next)
	}
	t.highest = highest
}

// dataVersion changes with each commit of another connection, in whichever
// process. It is 0 where this one's connection is not its own.
func (t *tail) dataVersion(ctx context.Context, on runner) (version int64, err error) {
	if t.conn == nil {
		return 0, nil
	}
	_, err = one(ctx, on, func(r *row) { version = r.int() }, `PRAGMA data_version`)
	return version, err
}

// readSQLite needs no more than what lies above: positions are drawn under
// the write lock and given back by a rollback, so that they are committed in
// order and none is missing.
func (t *tail) readSQLite(ctx context.Context, on runner) (p page, err error) {
	err = each(ctx, on, func(r *row) error {
		p.timeline, p.keyVersion, p.retain, p.position = r.int(), r.int(), r.millis(), r.int()
		if !r.null() {
			p.entries = append(p.entries, readRevocation(r))
		}
		return nil
	}, `SELECT m.timeline, m.key_version, m.retain_ms, {floor}, f.* FROM {meta} m
		LEFT JOIN (SELECT `+feedColumns+` FROM {feed} WHERE id > $1 ORDER BY id LIMIT $2) f ON true ORDER BY f.id`, t.highest, pollPage)
	p.more = len(p.entries) == pollPage
	return p, err
}

// readPostgreSQL also asks again for what was missing. All in one statement,
// so that one snapshot answers: a transaction that is over in it, as all below
// oldest are, was committed and shows its entry, or never will.
//
// Who draws a position has a transaction number by then. So next, which is
// read after position, is above the numbers of all who drew up to there. The
// snapshot's xmax is not: it follows the highest transaction that is over, and
// one that began later may have drawn before.
//
// age counts from the next number to be given, modulo 2^32.
func (t *tail) readPostgreSQL(ctx context.Context, on runner) (p page, err error) {
	asked := t.missing.ask()
	lows, highs := make([]int64, len(asked)), make([]int64, len(asked))
	p.answers = make([]answer, len(asked))
	for i, x := range asked {
		lows[i], highs[i] = x.low, x.high
		p.answers[i] = answer{gap: x, upTo: math.MaxInt64}
	}
	fresh := 0
	err = each(ctx, on, func(r *row) error {
		p.timeline, p.keyVersion, p.retain, p.position, p.oldest, p.next = r.int(), r.int(), r.millis(), r.int(), r.int(), r.int()
		p.history = history{true, r.int(), r.int(), r.int()}
		if r.null() {
			return nil
		}
		of := r.int()
		e := readRevocation(r)
		p.entries = append(p.entries, e)
		if of == 0 {
			fresh++
			return nil
		}
		a := &p.answers[of-1]
		if a.found = append(a.found, e.Position); len(a.found) == gapPage {
			a.upTo = e.Position
		}
		return nil
	}, `WITH t AS MATERIALIZED (
			SELECT timeline, key_version, retain_ms, {floor} AS position, txid_current_snapshot() AS snapshot, `+historyColumns+` FROM {meta}
		), s AS MATERIALIZED (
			SELECT *, txid_snapshot_xmin(snapshot) AS oldest, txid_snapshot_xmax(snapshot) AS next FROM t
		)
		SELECT s.timeline, s.key_version, s.retain_ms, s.position, s.oldest,
			CASE WHEN s.position >= 0 THEN s.next + age((s.next & 4294967295)::text::xid) END, s.was, s.server, s.cut, f.*
		FROM s LEFT JOIN (
			(SELECT 0::bigint AS of, `+feedColumns+` FROM {feed} WHERE id > $1 ORDER BY id LIMIT $2)
			UNION ALL
			SELECT g.of, m.* FROM unnest($3::bigint[], $4::bigint[]) WITH ORDINALITY g (low, high, of)
			CROSS JOIN LATERAL (SELECT `+feedColumns+` FROM {feed} WHERE id BETWEEN g.low AND g.high ORDER BY id LIMIT $5) m
		) f ON true ORDER BY f.of DESC, f.id`,
		t.highest, pollPage, lows, highs, gapPage)
	p.more = fresh == pollPage
	return p, err
}
