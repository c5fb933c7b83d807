package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// A standby of PostgreSQL that is promoted begins a history (WAL timeline) of
// its own. If it was asynchronous, it may lack what the primary committed last,
// and its sequence is behind: a position would be given twice, and whoever has
// read beyond it would miss the second. So table meta says which history the
// log was last written under. Who finds another one begins a new timeline of
// the feed, which every reader reads from its beginning, and sets numbers far
// ahead. No node reads entries of a history before that is done.

// history is what one read finds out about it.
type history struct {
	known  bool // PostgreSQL
	was    int64
	server int64 // 0: a standby
	cut    int64
}

func (h *history) standby() bool { return h.known && h.server == 0 }

func (h *history) changed() bool { return h.known && h.was != h.server }

// historyColumns ask table meta and the server. The name of a file of the
// write-ahead log begins with its timeline; that of pg_control_checkpoint is
// behind until the first checkpoint.
const historyColumns = `wal_timeline AS was,
	CASE WHEN pg_is_in_recovery() THEN 0 ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END AS server,
	CASE WHEN cut_timeline = timeline THEN cut_position ELSE 0 END AS cut`

// errStandby wraps ErrStoreUnavailable: another connection may lead to the primary.
var errStandby = fmt.Errorf("%w: this is a standby: sessions are read from the primary", counterfoil.ErrStoreUnavailable)

const (
	// numbersAhead is more positions, and so epochs of new subjects, than can
	// have been given without a standby having got one of them.
	numbersAhead = 1_000_000_000
	// versionsAhead is the same for versions of the key ring.
	versionsAhead = 1000
)

// adopt records the server's history. known is the highest position that the
// caller has heard of.
func (s *Store) adopt(ctx context.Context, known int64) error {
	return s.engine.tx(ctx, func(on runner) error {
		var h history
		// The lock makes this one after the other: the next finds it done.
		found, err := one(ctx, on, func(r *row) { h = history{true, r.int(), r.int(), r.int()} },
			`SELECT `+historyColumns+` FROM {meta} FOR NO KEY UPDATE`)
		switch {
		case err != nil || !found || !h.changed():
			return err
		case h.standby():
			return errStandby
		case h.was == 0:
			_, err = on.exec(ctx, `UPDATE {meta} SET wal_timeline = $1`, h.server)
			return err
		}
		_, err = on.exec(ctx, `UPDATE {meta} SET wal_timeline = $1, key_version = key_version + $2, cut_position = greatest({floor}, 1),
				timeline = n.timeline, cut_timeline = n.timeline
			FROM (SELECT greatest(timeline + 1, floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AS timeline FROM {meta}) n`,
			h.server, versionsAhead)
		if err != nil {
			return err
		}
		return each(ctx, on, func(*row) error { return nil },
			`SELECT setval('{feed_position}', greatest({floor}, $1::bigint) + $2::bigint)`, known, numbersAhead)
	})
}

// adoptAtOpen is adopt for who does not follow the log, such as a command.
func (s *Store) adoptAtOpen(ctx context.Context) error {
	if s.dialect != postgresql || s.moving {
		return nil
	}
	var h history
	err := s.engine.view(ctx, func(on runner) error {
		_, err := one(ctx, on, func(r *row) { h = history{true, r.int(), r.int(), r.int()} }, `SELECT `+historyColumns+` FROM {meta}`)
		return err
	})
	if err != nil || !h.changed() {
		return err
	}
	return s.adopt(ctx, 0)
}

// discard closes a connection and does not give it back to the pool.
func discard(conn *sql.Conn) error {
	err := conn.Raw(func(any) error { return driver.ErrBadConn })
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		err = nil
	}
	if closing := conn.Close(); closing != nil && !errors.Is(closing, sql.ErrConnDone) {
		err = errors.Join(err, closing)
	}
	return err
}

// Warnings says what of the database's own settings can undo what a call has
// reported as done, a sentence each, for the log of who starts. Those that
// Open refuses are not among them.
func (s *Store) Warnings(ctx context.Context) (list []string, err error) {
	if s.dialect != postgresql {
		return nil, nil
	}
	err = s.engine.view(ctx, func(on runner) error {
		list = nil
		var standbys int64
		var names, commit string
		_, err := one(ctx, on, func(r *row) { standbys, names, commit = r.int(), strings.TrimSpace(r.text()), r.text() },
			`SELECT (SELECT count(*) FROM pg_catalog.pg_stat_replication), current_setting('synchronous_standby_names'), current_setting('synchronous_commit')`)
		if err != nil {
			return err
		}
		switch {
		case standbys > 0 && names == "":
			list = append(list, "synchronous_standby_names is empty: a standby that is promoted lacks what it had not received, usually less than a second of revocations and sign-ins; "+
				"nodes that live on tell it revocations again; name a standby there to wait for it")
		case names != "" && commit == "local":
			list = append(list, "synchronous_commit is local: no commit waits for the standbys of synchronous_standby_names, and one that is promoted lacks what it had not received; set it to remote_write or on for this role")
		}
		if commit == "off" {
			list = append(list, "synchronous_commit is off: a crash undoes what was committed in the last three times wal_writer_delay, usually 0.6 s")
		}
		return nil
	})
	if err != nil {
		return nil, failed("read the settings", err)
	}
	return list, nil
}
