package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/counterfoil/counterfoil/sqlstore"
)

// checkDatabase opens the database for reading alone, and looks at its schema
// and settings.
func checkDatabase(ctx context.Context, p *patient) (found []finding) {
	db, err := parseDatabase(string(p.flags.database))
	if err != nil {
		return []finding{fail("address", oneLine(err.Error()), "--database sqlite:FILE or postgres://USER@HOST/NAME")}
	}
	p.database = db
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if db.isSQLite() {
		there, err := db.checkFile()
		switch {
		case err != nil:
			return []finding{fail("file", oneLine(err.Error()), "mend --database, or run the doctor as the user of serve")}
		case !there:
			return []finding{warn("file", db.path+" is not there", "counterfoil serve makes it on the first start")}
		}
	}
	if err := db.connectReading(); err != nil {
		return []finding{fail("connection", oneLine(err.Error()), "mend --database")}
	}
	if err := db.db.PingContext(ctx); err != nil {
		return []finding{fail("connection", fmt.Sprintf("%s does not answer (%s): nothing is minted, nobody is signed out", db, reason(err)), connectionHelp(db))}
	}
	found = append(found, p.checkSchema(ctx)...)
	if db.isSQLite() {
		return append(found, checkSQLite(ctx, db)...)
	}
	return append(found, checkPostgreSQL(ctx, p)...)
}

func connectionHelp(d *database) string {
	if d.isSQLite() {
		return "run the doctor as the user of serve, who may write in the folder"
	}
	return fmt.Sprintf("psql %q; on the server: pg_isready -h %s", d.String(), d.url.Hostname())
}

// reason is the end of a chain of errors, which says most; a URL is not in it.
func reason(err error) string {
	if connect, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		err = connect
		for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
			err = next
		}
	}
	return oneLine(err.Error())
}

// connectReading opens a pool whose connections cannot change anything.
func (d *database) connectReading() error {
	if d.isSQLite() {
		source := sqlstore.SQLiteDSN(d.path) + "&mode=ro"
		if _, err := os.Stat(d.path + "-wal"); errors.Is(err, fs.ErrNotExist) {
			source += "&immutable=1" // nobody has it open; a reader would leave files beside it
		}
		db, err := sql.Open("sqlite", source)
		if err != nil {
			return d.fail(err)
		}
		d.db, d.store = db, sqlstore.SQLite(db)
		return nil
	}
	config, err := pgx.ParseConfig(d.url.String())
	if err != nil {
		return d.fail(errors.New("the PostgreSQL URL cannot be read"))
	}
	d.db = stdlib.OpenDB(*config, stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "SET default_transaction_read_only = on; SET statement_timeout = '5s'; SET application_name = 'counterfoil doctor'")
		return err
	}))
	d.db.SetMaxOpenConns(2)
	d.store = sqlstore.PostgreSQL(d.db)
	return nil
}

// checkSchema says whether the tables are there, ours, and of this version,
// and reads what later checks need.
func (p *patient) checkSchema(ctx context.Context) []finding {
	const check = "tables"
	missing, err := p.database.missing(ctx)
	if err != nil {
		return []finding{fail(check, oneLine(err.Error()), "use the counterfoil that made them, or a newer one")}
	}
	if err := p.database.refuseForeign(ctx); err != nil {
		return []finding{fail(check, oneLine(err.Error()), "counterfoil migrate --share, when that is meant; else mend --database")}
	}
	all, err := sqlMigrations(p.database)
	if err != nil {
		return []finding{fail(check, oneLine(err.Error()), "build the program again: its files are damaged")}
	}
	p.schema = len(all) - len(missing)
	if p.schema == 0 {
		return []finding{warn(check, "there are none yet", "counterfoil serve makes them on the first start; or counterfoil migrate")}
	}
	ring, err := p.database.store.Catalog().Keys(ctx)
	if err == nil {
		p.head, err = p.database.store.Feed().Head(ctx)
	}
	if err != nil {
		return []finding{fail(check, "they cannot be read: "+oneLine(err.Error()), "give the role of --database SELECT on counterfoil_*, or run the doctor as the user of serve")}
	}
	p.ring, p.opened = &ring, true
	if len(missing) > 0 {
		var names []string
		for _, m := range missing {
			names = append(names, m.Name)
		}
		return []finding{warn(check, fmt.Sprintf("they are of an older version: %s to come", strings.Join(names, ", ")),
			"the first counterfoil serve of this version does it; docs/operations.md says how to upgrade nodes one after the other")}
	}
	return []finding{ok(check, "they are those of this version (%d)", p.schema)}
}

func sqlMigrations(d *database) ([]migrationFile, error) {
	if d.isSQLite() {
		return readMigrations(sqlstore.SQLiteMigrations())
	}
	return readMigrations(sqlstore.PostgreSQLMigrations())
}
