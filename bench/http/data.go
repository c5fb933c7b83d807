//go:build linux

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/rueidis"
	_ "modernc.org/sqlite"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/bench/internal/stage"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/redisstore"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// data is what lies in a store beside the sessions that calls are about.
type data struct {
	add   func(ctx context.Context, from, to int) error
	size  func(ctx context.Context) (int64, error) // in bytes, of all sessions
	holds int
	bytes map[int]float64 // a session, by how many were loaded
	place place           // where a process of ours finds it; empty: it is not ours
}

// grow loads until there are so many sessions, four a user.
func (d *data) grow(ctx context.Context, sessions int) error {
	if sessions <= d.holds {
		return nil
	}
	if err := d.add(ctx, d.holds, sessions); err != nil {
		return err
	}
	d.holds = sessions
	n, err := d.size(ctx)
	if d.bytes == nil {
		d.bytes = map[int]float64{}
	}
	d.bytes[sessions] = float64(n) / float64(sessions)
	return err
}

// loadedUser is the id of a user whose sessions were loaded.
func loadedUser(n int) string { return fmt.Sprintf("load-%d", n) }

const agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"

// rows are written as the store itself would, all at once.
const rows = `INSERT INTO counterfoil_sessions (subject_no, created_at, last_active_at, idle_ms, expires_at, epoch0, sid, secret_hash, client_id, amr, user_agent, ip)
	SELECT s.no, $1, $1, 604800000, $1 + 2592000000, 1, %s, %s, 'default', '["pwd"]', '` + agent + `', '203.0.113.77'
	FROM counterfoil_subjects s, (SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4) four WHERE s.no > $2`

// postgresRows are sessions in a database of the server.
func postgresRows(p *stage.Postgres, database string) *data {
	d := &data{place: place{sql: p.URL(database)}}
	d.add = func(ctx context.Context, from, to int) error {
		err := onDatabase(ctx, "pgx", p.URL(database), func(db *sql.DB) error {
			return addRows(ctx, db, from, to, "substr(md5(random()::text), 1, 24)", "sha256(random()::text::bytea)",
				`INSERT INTO counterfoil_subjects (epoch, id) SELECT 1, 'load-' || n FROM generate_series($1::int, $2::int) n`)
		})
		if err != nil {
			return err
		}
		return errors.Join(p.Exec(ctx, database, "VACUUM ANALYZE"), p.Exec(ctx, database, "CHECKPOINT"))
	}
	d.size = func(ctx context.Context) (int64, error) {
		return p.Int(ctx, database, "SELECT pg_total_relation_size('counterfoil_sessions')")
	}
	return d
}

// sqliteRows are sessions in a file.
func sqliteRows(path string) *data {
	d := &data{place: place{file: path}}
	dsn := sqlstore.SQLiteDSN(path)
	d.add = func(ctx context.Context, from, to int) error {
		return onDatabase(ctx, "sqlite", dsn, func(db *sql.DB) error {
			return addRows(ctx, db, from, to, "lower(hex(randomblob(12)))", "randomblob(32)",
				`WITH RECURSIVE series(n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM series WHERE n < $2)
				INSERT INTO counterfoil_subjects (epoch, id) SELECT 1, 'load-' || n FROM series`)
		})
	}
	d.size = func(ctx context.Context) (n int64, err error) {
		err = onDatabase(ctx, "sqlite", dsn, func(db *sql.DB) error {
			return db.QueryRowContext(ctx, `SELECT sum(pgsize) FROM dbstat WHERE name LIKE '%session%'`).Scan(&n)
		})
		return n, err
	}
	return d
}

func onDatabase(ctx context.Context, driver, dsn string, do func(*sql.DB) error) error {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return err
	}
	return errors.Join(do(db), db.Close())
}

// addRows adds users and their sessions a hundred thousand at a time: a server
// that is up needs the file's one writer in between.
func addRows(ctx context.Context, db *sql.DB, from, to int, sid, secret, users string) error {
	const step = 100_000
	for ; from < to; from += step {
		end := min(from+step, to)
		var last int64
		if err := db.QueryRowContext(ctx, `SELECT coalesce(max(no), 0) FROM counterfoil_subjects`).Scan(&last); err != nil {
			return err
		}
		if _, err := db.ExecContext(ctx, users, from/4, end/4-1); err != nil {
			return fmt.Errorf("users: %w", err)
		}
		if _, err := db.ExecContext(ctx, fmt.Sprintf(rows, sid, secret), time.Now().UnixMilli(), last); err != nil {
			return fmt.Errorf("sessions: %w", err)
		}
	}
	return nil
}

// redisRecords are sessions in Redis, their users in a database of PostgreSQL.
func redisRecords(r *stage.Redis, p *stage.Postgres, database string) *data {
	d := &data{place: place{sql: p.URL(database), redis: r.URL}}
	var before int64
	d.add = func(ctx context.Context, from, to int) (err error) {
		if from == 0 {
			if before, err = r.Memory(ctx); err != nil {
				return err
			}
		}
		users := fmt.Sprintf(`INSERT INTO counterfoil_subjects (epoch, id) SELECT 1, 'load-' || n FROM generate_series(%d, %d) n`, from/4, to/4-1)
		if err := errors.Join(p.Exec(ctx, database, users), p.Exec(ctx, database, "VACUUM ANALYZE")); err != nil {
			return err
		}
		return imports(ctx, r.URL, from, to)
	}
	d.size = func(ctx context.Context) (int64, error) {
		n, err := r.Memory(ctx)
		return n - before, err
	}
	return d
}

// imports writes sessions into Redis as a move does, many of a shard at a time.
func imports(ctx context.Context, url string, from, to int) error {
	option, err := redisstore.ParseURL(url)
	if err != nil {
		return err
	}
	importer, err := redisstore.OpenImporter(ctx, option)
	if err != nil {
		return err
	}
	defer importer.Close()
	// Each step is many round trips, one after the other.
	const step, together = 20_000, 4
	now := time.Now()
	var all sync.WaitGroup
	errs := make([]error, together)
	for worker := range together {
		all.Go(func() {
			for begin := from + worker*step; begin < to && errs[worker] == nil; begin += together * step {
				var list []counterfoil.Session
				for n := begin; n < min(begin+step, to); n++ {
					one := newSession(loadedUser(n/4), now)
					one.Epoch0 = 1
					list = append(list, one)
				}
				_, errs[worker] = importer.Import(ctx, list)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// newSession is one as a sign-in makes it.
func newSession(user string, now time.Time) counterfoil.Session {
	_, hash := opaque.New(opaque.SessionToken, opaque.NewID())
	return counterfoil.Session{
		ID: opaque.NewSelector(user), Subject: user, ClientID: "default", CreatedAt: now, LastActiveAt: now,
		IdleTimeout: 7 * 24 * time.Hour, ExpiresAt: now.Add(30 * 24 * time.Hour), AuthTime: now, Methods: []string{"pwd"},
		SecretHash: hash, Device: counterfoil.Device{UserAgent: agent, IP: "203.0.113.77"},
	}
}

// hybridRows are sessions of scs in its table.
func hybridRows(p *stage.Postgres) *data {
	d := &data{}
	d.add = func(ctx context.Context, from, to int) error {
		statement := fmt.Sprintf(`INSERT INTO sessions (token, data, expiry)
			SELECT substr(encode(sha256(random()::text::bytea), 'base64'), 1, 43), (SELECT data FROM sessions LIMIT 1), now() + interval '1 day'
			FROM generate_series(%d, %d)`, from, to-1)
		return errors.Join(p.Exec(ctx, hybridDatabase, statement), p.Exec(ctx, hybridDatabase, "VACUUM ANALYZE"), p.Exec(ctx, hybridDatabase, "CHECKPOINT"))
	}
	d.size = func(ctx context.Context) (int64, error) {
		return p.Int(ctx, hybridDatabase, "SELECT pg_total_relation_size('sessions')")
	}
	return d
}

// hybridKeys are sessions of scs in Redis.
func hybridKeys(r *stage.Redis) *data {
	d := &data{}
	var before int64
	d.add = func(ctx context.Context, from, to int) (err error) {
		if from == 0 {
			if before, err = r.Memory(ctx); err != nil {
				return err
			}
		}
		option, err := redisstore.ParseURL(r.URL)
		if err != nil {
			return err
		}
		option.DisableCache = true
		client, err := rueidis.NewClient(option)
		if err != nil {
			return err
		}
		defer client.Close()
		value := string(make([]byte, 110)) // as long as scs encodes one user
		for from < to {
			var batch rueidis.Commands
			for ; from < to && len(batch) < 1000; from++ {
				batch = append(batch, client.B().Set().Key("scs:session:"+opaque.RandomText()+opaque.RandomText()[:19]).Value(value).Px(24*time.Hour).Build())
			}
			for _, result := range client.DoMulti(ctx, batch...) {
				if err := result.Error(); err != nil {
					return err
				}
			}
		}
		return nil
	}
	d.size = func(ctx context.Context) (int64, error) {
		n, err := r.Memory(ctx)
		return n - before, err
	}
	return d
}
