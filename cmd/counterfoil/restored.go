package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/counterfoil/counterfoil/redisstore"
	"github.com/counterfoil/counterfoil/sqlstore"
)

func restoredCommand() *command {
	return &command{
		name:  "restored",
		short: "Make a database usable that was restored from a backup",
		long: `What happened after the backup was made is not in it: sessions that were revoked
since would be good again, access tokens that were refused would be taken. So, in one
transaction: the feed of revocations starts a new timeline, every signing key is
revoked (servers make new ones when they start), all epochs are raised, and every
session ends: everybody signs in again.

--keep-sessions is for a restore that lost nothing, to the last commit (point-in-time
recovery to the end of the log): the sessions go on. If anything was lost after all,
whoever was signed out in that time is signed in again.

Stop all servers first, and start them after it. It shows what it would do; --yes
does it.`,
		examples: []string{
			"counterfoil restored --database sqlite:counterfoil.db",
			"counterfoil restored --database postgres://counterfoil@db/counterfoil --yes",
		},
		setup: restored,
	}
}

func restored(a *app, f *flags) func(context.Context, []string) error {
	var yes, keep, force boolValue
	stores := storesFlags(f)
	f.add(&keep, "keep-sessions", "", "the restore lost no commit: sessions go on")
	f.add(&yes, "yes", "", "do it")
	f.add(&force, "force", "", "also while servers seem to run on the database: they mint nothing from then on, until they are started again")
	asJSON := jsonFlag(f)
	f.configFlag()
	return func(ctx context.Context, args []string) (err error) {
		if err := noArgs(args); err != nil {
			return err
		}
		db, err := stores.parse()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.close()) }()
		careful := bool(yes) && !bool(force)
		if careful && db.isSQLite() { // before we have it open ourselves
			if err := db.refuseUsed(ctx); err != nil {
				return err
			}
		}
		if err := db.openExisting(ctx); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.store.Close()) }()
		if careful && !db.isSQLite() {
			if err := db.refuseUsed(ctx); err != nil {
				return err
			}
		}
		how := sqlstore.Restoration{KeepSessions: bool(keep), Elsewhere: db.redis != nil, Actor: "operator"}
		before, err := db.store.Backup(ctx, how)
		if errors.Is(err, sqlstore.ErrSessionsElsewhere) {
			err = errors.New("its sessions are kept in Redis: give --sessions as its servers do")
		}
		if err != nil {
			return db.fail(plainMove(err))
		}
		p := newPrinter(a)
		if !yes {
			if !*asJSON {
				showBackup(p, db, before, bool(keep))
			}
			return errors.New("nothing was changed: stop all servers and run it again with --yes")
		}
		// Before, so that no copy is left if this ends in between, and after,
		// for what a server has read meanwhile.
		if err := db.forgetCopies(ctx, bool(keep)); err != nil {
			return err
		}
		done, err := db.store.Restored(ctx, how)
		if err != nil {
			return db.fail(plainMove(err))
		}
		if err := db.forgetCopies(ctx, bool(keep)); err != nil {
			return fmt.Errorf("%s is done, and Redis may hold copies of subjects from before: run it again: %w", db, err)
		}
		if *asJSON {
			return p.json(map[string]any{"database": db.String(), "timeline": done.Number, "subjects": done.Subjects, "keys_revoked": done.Keys,
				"sessions": done.Sessions, "sessions_kept": done.Kept, "api_keys": done.APIKeys, "seconds": done.Took.Seconds()})
		}
		showRestored(p, db, done)
		return nil
	}
}

// counted is a number with its noun.
func counted(n int64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return grouped(n) + " " + noun
}

func showBackup(p *printer, db *database, b sqlstore.Backup, keep bool) {
	p.printf("%s holds %s, %s that would be good, %s.\n\n", db, counted(b.Subjects, "subject"), counted(b.Sessions, "session"), counted(b.Keys, "signing key"))
	p.printf("This would revoke the signing keys: every access token from before is refused.\n")
	if keep {
		p.printf("%s The sessions go on (--keep-sessions). Whoever was signed out after the backup was\nmade is signed in again, if the restore lost that.\n", p.paint(warning, "Mind:"))
	} else {
		p.printf("All sessions would end: everybody signs in again.\n")
	}
	p.printf("%s\n", asInBackup(b))
}

// asInBackup names what no command can know of.
func asInBackup(b sqlstore.Backup) string {
	return fmt.Sprintf(`Users, passwords, passkeys, roles and %s are as they were in the backup:
look at what was changed since, above all at who was disabled and which API keys were
revoked (counterfoil user list, counterfoil api-key list).`, counted(b.APIKeys, "API key"))
}

func showRestored(p *printer, db *database, r sqlstore.Restored) {
	p.printf("%s %s has the new timeline %d. %s revoked", p.paint(good, "Done."), db, r.Number, counted(r.Keys, "signing key"))
	switch sessions := counted(r.Sessions, "session"); {
	case db.redis != nil && r.Kept:
		p.printf("; the sessions in %s go on", db.redis)
	case db.redis != nil:
		p.printf("; all sessions in %s ended", db.redis)
	case r.Kept:
		p.printf("; %s go on", sessions)
	default:
		p.printf("; %s ended", sessions)
	}
	p.printf(". It took %s.\n\n%s\n\nNow start the servers: they make new signing keys, under the seal they are given.\n", roughly(r.Took), asInBackup(r.Backup))
}

// forgetCopies takes the copies of subjects out of Redis, where sessions are
// kept there. With keep it may lack revocations, which the journal has.
func (d *database) forgetCopies(ctx context.Context, keep bool) error {
	if d.redis == nil {
		return nil
	}
	redis, err := redisstore.OpenImporter(ctx, d.redis.option, redisstore.Logger(slog.New(slog.DiscardHandler)))
	if err == nil {
		if err = redis.Forget(ctx); err == nil && !keep {
			err = redis.Finish(ctx)
		}
		redis.Close()
	}
	if err != nil {
		return &databaseError{d.redis.String(), err}
	}
	return nil
}

// refuseUsed looks for servers on the database, as well as it can be seen.
func (d *database) refuseUsed(ctx context.Context) error {
	used := d.usedSQLite
	if !d.isSQLite() {
		used = d.usedPostgreSQL
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	by, err := used(ctx)
	if err != nil {
		return d.fail(err)
	}
	if by != "" {
		return d.fail(fmt.Errorf("it is in use (%s): stop all servers first, or give --force", by))
	}
	return nil
}

// usedPostgreSQL knows the servers by the name that connect gives connections.
func (d *database) usedPostgreSQL(ctx context.Context) (by string, err error) {
	list, err := d.strings(ctx, `SELECT DISTINCT application_name FROM pg_catalog.pg_stat_activity
		WHERE datname = current_database() AND application_name LIKE 'counterfoil %' AND application_name <> current_setting('application_name') ORDER BY 1`)
	return strings.Join(list, ", "), err
}

// nameConnections gives the connections of this process a name, by which a
// DBA, and counterfoil restored, know them.
func nameConnections(params map[string]string) {
	if params["application_name"] != "" {
		return
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	params["application_name"] = fmt.Sprintf("counterfoil %d@%.40s", os.Getpid(), host)
}

// usedSQLite tries to have the file alone, which works when nobody else has it open.
func (d *database) usedSQLite(ctx context.Context) (by string, err error) {
	if found, err := d.checkFile(); err != nil || !found {
		return "", err
	}
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(d.path))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	for _, statement := range []string{`PRAGMA busy_timeout = 300`, `PRAGMA locking_mode = EXCLUSIVE`, `BEGIN IMMEDIATE`, `ROLLBACK`} {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			if strings.Contains(err.Error(), "SQLITE_BUSY") || strings.Contains(err.Error(), "locked") {
				return "another process has it open", nil
			}
			return "", err
		}
	}
	return "", nil
}
