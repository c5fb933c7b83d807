package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// postgresState is what a PostgreSQL server says of itself.
type postgresState struct {
	version                                int // 150004
	standby                                bool
	fsync, fullPageWrites, commit, autovac string
	standbyNames                           string
	connections, reserved, used            int
	standbys                               []standby
	encrypted, hidden                      bool // hidden: the role may not see others' activity
	oldest                                 *transaction
	prepared                               int
	bloated                                []bloat
	frozen                                 int64 // age of the oldest transaction id
	pool, nodes                            int
	remote                                 bool
}

// standby is one line of pg_stat_replication.
type standby struct {
	name, state, sync string
	lag               time.Duration // of the replay
	behind            int64         // bytes
}

// transaction is the one that is open longest.
type transaction struct {
	pid         int
	application string
	state       string
	open        time.Duration
}

// bloat is a table with many dead rows.
type bloat struct {
	table      string
	live, dead int64
}

func checkPostgreSQL(ctx context.Context, p *patient) []finding {
	s, err := readPostgres(ctx, p.database)
	if err != nil {
		return []finding{fail("settings", "they cannot be read: "+oneLine(err.Error()), connectionHelp(p.database))}
	}
	s.pool, s.nodes = poolSize(), max(1, len(p.authorities))
	s.remote = p.database.url.Hostname() != "" && !isLoopback(p.database.url.Hostname()+":0")
	found := judgeServer(s)
	found = append(found, judgeDurability(s)...)
	found = append(found, judgeStandbys(s)...)
	found = append(found, judgeConnections(s))
	return append(found, judgeHousekeeping(s)...)
}

func readPostgres(ctx context.Context, d *database) (*postgresState, error) {
	s := &postgresState{}
	err := d.db.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, pg_is_in_recovery(),
		current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'), current_setting('autovacuum'),
		current_setting('synchronous_standby_names'), current_setting('max_connections')::int,
		current_setting('superuser_reserved_connections')::int + coalesce(current_setting('reserved_connections', true), '0')::int,
		(SELECT coalesce(sum(numbackends), 0) FROM pg_stat_database),
		coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
		NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
		(SELECT count(*) FROM pg_prepared_xacts WHERE prepared < now() - interval '1 minute'),
		(SELECT max(age(datfrozenxid)) FROM pg_database)`).
		Scan(&s.version, &s.standby, &s.fsync, &s.fullPageWrites, &s.commit, &s.autovac, &s.standbyNames, &s.connections, &s.reserved,
			&s.used, &s.encrypted, &s.hidden, &s.prepared, &s.frozen)
	if err != nil {
		return nil, err
	}
	if err := s.readStandbys(ctx, d); err != nil {
		return nil, err
	}
	if err := s.readOldest(ctx, d); err != nil {
		return nil, err
	}
	return s, s.readBloat(ctx, d)
}

func (s *postgresState) readStandbys(ctx context.Context, d *database) (err error) {
	if s.standby {
		return nil // its own standbys say nothing about the primary's
	}
	rows, err := d.db.QueryContext(ctx, `SELECT coalesce(application_name, ''), coalesce(state, ''), coalesce(sync_state, ''),
		coalesce(extract(epoch FROM replay_lag) * 1000, 0)::bigint, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0)::bigint
		FROM pg_stat_replication ORDER BY 1`)
	if err != nil {
		return err
	}
	defer func() {
		if closing := rows.Close(); err == nil {
			err = closing
		}
	}()
	for rows.Next() {
		var one standby
		var lag int64
		if err := rows.Scan(&one.name, &one.state, &one.sync, &lag, &one.behind); err != nil {
			return err
		}
		one.lag = time.Duration(lag) * time.Millisecond
		s.standbys = append(s.standbys, one)
	}
	return rows.Err()
}

func (s *postgresState) readOldest(ctx context.Context, d *database) error {
	found, err := d.strings(ctx, `SELECT pid::text || '|' || coalesce(nullif(application_name, ''), usename, '') || '|' || coalesce(state, '') || '|' ||
		(extract(epoch FROM clock_timestamp() - xact_start) * 1000)::bigint::text
		FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'
		ORDER BY xact_start LIMIT 1`)
	if err != nil || len(found) == 0 {
		return err
	}
	parts := strings.Split(found[0], "|")
	var t transaction
	var open int64
	if _, err := fmt.Sscan(parts[0], &t.pid); err != nil {
		return err
	}
	if _, err := fmt.Sscan(parts[len(parts)-1], &open); err != nil {
		return err
	}
	t.application, t.state, t.open = strings.Join(parts[1:len(parts)-2], "|"), parts[len(parts)-2], time.Duration(open)*time.Millisecond
	s.oldest = &t
	return nil
}

func (s *postgresState) readBloat(ctx context.Context, d *database) (err error) {
	rows, err := d.db.QueryContext(ctx, `SELECT relname::text, n_live_tup, n_dead_tup FROM pg_stat_user_tables
		WHERE relname LIKE 'counterfoil\_%' AND n_dead_tup > 50000 AND n_dead_tup > n_live_tup / 2 ORDER BY n_dead_tup DESC LIMIT 3`)
	if err != nil {
		return err
	}
	defer func() {
		if closing := rows.Close(); err == nil {
			err = closing
		}
	}()
	for rows.Next() {
		var b bloat
		if err := rows.Scan(&b.table, &b.live, &b.dead); err != nil {
			return err
		}
		s.bloated = append(s.bloated, b)
	}
	return rows.Err()
}

func judgeServer(s *postgresState) (found []finding) {
	major := s.version / 10000
	switch {
	case major < 12:
		found = append(found, fail("version", fmt.Sprintf("PostgreSQL %d is too old, and serve refuses it", major), "upgrade to a supported version (pg_upgrade)"))
	case major < 14:
		found = append(found, warn("version", fmt.Sprintf("PostgreSQL %d gets no fixes any more", major), "upgrade to a supported version (pg_upgrade)"))
	default:
		found = append(found, ok("version", "PostgreSQL %d.%d", major, s.version%10000))
	}
	if s.standby {
		found = append(found, fail("role", "this is a standby: sessions are read from the primary, and serve refuses to start here", "name the primary in --database; several hosts and target_session_attrs=read-write follow a failover; or promote this one: SELECT pg_promote()"))
	} else {
		found = append(found, ok("role", "primary"))
	}
	if s.remote && !s.encrypted {
		found = append(found, warn("encryption", "the connection is not encrypted: hashes and sealed keys can be read on the way, and answers changed", "sslmode=verify-full in the URL of --database"))
	}
	return found
}

// judgeDurability says whether an acknowledged revocation survives a crash.
func judgeDurability(s *postgresState) (found []finding) {
	switch s.commit {
	case "off":
		found = append(found, fail("synchronous_commit", "off: a crash undoes the last commits, revocations too, and serve refuses to start", "ALTER ROLE … SET synchronous_commit = on"))
	case "local":
		found = append(found, warn("synchronous_commit", "local: a commit does not wait for a standby; when one is promoted, the last commits may be missing", "ALTER ROLE … SET synchronous_commit = on"))
	default:
		found = append(found, ok("synchronous_commit", "%s", s.commit))
	}
	if s.fsync != "on" {
		found = append(found, fail("fsync", "off: a power failure damages the database", "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()"))
	} else {
		found = append(found, ok("fsync", "on"))
	}
	if s.fullPageWrites != "on" {
		found = append(found, warn("full_page_writes", "off: unless the file system writes pages whole (ZFS does), a power failure damages the database", "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf()"))
	} else {
		found = append(found, ok("full_page_writes", "on"))
	}
	return found
}

const (
	standbyLate   = 10 * time.Second
	standbyBehind = 64 << 20
)

// judgeStandbys says what a failover would lose.
func judgeStandbys(s *postgresState) (found []finding) {
	if s.standby {
		return nil
	}
	const grant = "GRANT pg_monitor TO the role of --database"
	synchronous := 0
	for _, one := range s.standbys {
		if one.sync == "sync" || one.sync == "quorum" {
			synchronous++
		}
		if s.hidden {
			continue
		}
		if one.state != "streaming" || one.lag > standbyLate || one.behind > standbyBehind {
			found = append(found, warn("standby "+one.name, fmt.Sprintf("%s, %s behind (%s): promoted now, it would need that long, or lack it", one.state, roughly(one.lag), megabytes(one.behind)), "look at its log and its disk; SELECT * FROM pg_stat_replication"))
		}
	}
	switch {
	case len(s.standbys) > 0 && s.hidden:
		found = append(found, warn("standbys", fmt.Sprintf("%s, but this role may not see how they are", plural(len(s.standbys), "standby connection")), grant))
	case s.standbyNames == "" && len(s.standbys) == 0:
		found = append(found, warn("standbys", "there is none: when this server is lost, so is what was written since the last backup", "add a synchronous standby: docs/operations.md"))
	case s.standbyNames == "":
		found = append(found, warn("standbys", fmt.Sprintf("%s, none of them synchronous: a promoted one may lack the last commits, revocations too", plural(len(s.standbys), "standby")), "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (name, name)'; SELECT pg_reload_conf()"))
	case synchronous == 0:
		found = append(found, fail("standbys", fmt.Sprintf("synchronous_standby_names is %q, and none of them is connected: every commit waits", s.standbyNames), "bring the standby back; or, giving up its safety: ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf()"))
	case len(found) == 0:
		found = append(found, ok("standbys", "%d connected, %d synchronous: a promoted one has every acknowledged commit", len(s.standbys), synchronous))
	}
	return found
}

func judgeConnections(s *postgresState) finding {
	const check = "connections"
	room := s.connections - s.reserved
	says := fmt.Sprintf("max_connections leaves %d; each node takes up to %d", room, s.pool)
	switch {
	case room < s.pool*s.nodes:
		return fail(check, fmt.Sprintf("%s, and there are %d: some would be refused", says, s.nodes), fmt.Sprintf("ALTER SYSTEM SET max_connections = %d, and restart PostgreSQL", s.pool*s.nodes+s.reserved+20))
	case s.used > room*9/10:
		return warn(check, fmt.Sprintf("%d of %d are taken", s.used, room), "SELECT application_name, count(*) FROM pg_stat_activity GROUP BY 1; or raise max_connections")
	case room < s.pool*(s.nodes+1):
		return warn(check, says+": a further node, as in a rolling upgrade, would find no room", fmt.Sprintf("ALTER SYSTEM SET max_connections = %d, and restart PostgreSQL", s.pool*(s.nodes+1)+s.reserved+20))
	}
	return ok(check, "%s: room for %d nodes", says, room/s.pool)
}

// longOpen holds back what vacuum may clean, and gaps in the feed log.
const longOpen = time.Minute

func judgeHousekeeping(s *postgresState) (found []finding) {
	switch {
	case s.hidden:
		found = append(found, warn("open transactions", "this role may not see those of others", "GRANT pg_monitor TO the role of --database"))
	case s.oldest != nil && s.oldest.open > longOpen:
		found = append(found, warn("open transactions", fmt.Sprintf("one of %q (%s) is open for %s: dead rows stay, and verifiers that reconnect are told more than they need, since what it may still write is waited for", s.oldest.application, s.oldest.state, roughly(s.oldest.open)),
			fmt.Sprintf("SELECT pg_terminate_backend(%d); and a limit: ALTER ROLE … SET idle_in_transaction_session_timeout = '1min'", s.oldest.pid)))
	default:
		found = append(found, ok("open transactions", "none is open for long"))
	}
	if s.prepared > 0 {
		found = append(found, warn("prepared transactions", fmt.Sprintf("%d are older than a minute, and hold back vacuum as open ones do", s.prepared), "SELECT gid FROM pg_prepared_xacts; then COMMIT PREPARED or ROLLBACK PREPARED"))
	}
	if s.autovac != "on" {
		found = append(found, fail("autovacuum", "off: the tables of sessions and of the feed grow without end", "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()"))
	} else {
		found = append(found, ok("autovacuum", "on"))
	}
	for _, b := range s.bloated {
		found = append(found, warn("dead rows", fmt.Sprintf("%s has %d beside %d live ones", b.table, b.dead, b.live), "VACUUM (ANALYZE) "+b.table+"; then see what keeps autovacuum from it"))
	}
	if s.frozen > 1_000_000_000 {
		found = append(found, warn("transaction ids", fmt.Sprintf("the oldest is %d million old; at 2,100 the server stops taking writes", s.frozen/1_000_000), "VACUUM (FREEZE), and end what is open for long"))
	}
	return found
}
