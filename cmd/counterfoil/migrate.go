package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/counterfoil/counterfoil/sqlstore"
)

func migrateCommand() *command {
	return &command{
		name:  "migrate",
		short: "Make or update the tables of a database",
		long: `serve does this by itself when it starts. This command is for those who want it
done before, by a role that may change tables, or among the tables of an
application that shares the database (--share).`,
		examples: []string{
			"counterfoil migrate --database sqlite:counterfoil.db",
			"counterfoil migrate --database postgres://app@db/app --share --dry-run",
		},
		setup: migrate,
	}
}

func migrate(a *app, f *flags) func(context.Context, []string) error {
	var dryRun, share boolValue
	f.add(&dryRun, "dry-run", "", "print the SQL that is missing and change nothing")
	f.add(&share, "share", "", "add the tables to a database that has tables of an application")
	database := databaseFlag(f)
	asJSON := jsonFlag(f)
	f.configFlag()
	return func(ctx context.Context, args []string) (err error) {
		if err := noArgs(args); err != nil {
			return err
		}
		db, err := parseDatabase(string(*database))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.close()) }()
		missing, err := db.missing(ctx)
		if err != nil {
			return err
		}
		if !dryRun {
			if err := db.create(ctx, bool(share)); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, db.store.Close()) }()
		}
		return showMigrations(newPrinter(a), db, missing, bool(dryRun), bool(*asJSON))
	}
}

type migrationFile struct {
	Name string `json:"name"`
	SQL  string `json:"sql,omitempty"`
}

func showMigrations(p *printer, db *database, missing []migrationFile, dryRun, asJSON bool) error {
	if asJSON {
		if missing == nil {
			missing = []migrationFile{}
		}
		key := "applied"
		if dryRun {
			key = "missing"
		}
		return p.json(map[string]any{"database": db.String(), key: missing})
	}
	if len(missing) == 0 {
		p.printf("%s%s is up to date.\n", comment(dryRun), db)
		return nil
	}
	for _, m := range missing {
		if dryRun {
			p.printf("-- %s\n%s\n", m.Name, strings.TrimSpace(m.SQL))
			continue
		}
		p.printf("%s: applied %s\n", db, m.Name)
	}
	return nil
}

// comment keeps the output of a dry run good as SQL.
func comment(dryRun bool) string {
	if dryRun {
		return "-- "
	}
	return ""
}

// missing returns the migrations that the database lacks. It changes nothing.
func (d *database) missing(ctx context.Context) ([]migrationFile, error) {
	files := sqlstore.PostgreSQLMigrations()
	found := true
	if d.isSQLite() {
		files = sqlstore.SQLiteMigrations()
		var err error
		if found, err = d.checkFile(); err != nil {
			return nil, err
		}
	}
	all, err := readMigrations(files)
	if err != nil || !found {
		return all, err
	}
	if err := d.connect(); err != nil {
		return nil, err
	}
	version, err := d.schemaVersion(ctx)
	if err != nil {
		return nil, d.fail(err)
	}
	if version > len(all) {
		return nil, d.fail(fmt.Errorf("the schema has version %d, newer than the %d of this program: use a newer counterfoil", version, len(all)))
	}
	return all[version:], nil
}

func readMigrations(files fs.FS) ([]migrationFile, error) {
	names, err := fs.Glob(files, "*.sql") // sorted
	if err != nil {
		return nil, err
	}
	var all []migrationFile
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		all = append(all, migrationFile{name, string(text)})
	}
	return all, nil
}

// schemaVersion is the number of migrations that were applied.
func (d *database) schemaVersion(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	exists := `SELECT name FROM sqlite_master WHERE name = 'counterfoil_schema'`
	if !d.isSQLite() {
		exists = `SELECT 'yes' WHERE to_regclass('counterfoil_schema') IS NOT NULL`
	}
	tables, err := d.strings(ctx, exists)
	if err != nil || len(tables) == 0 {
		return 0, err
	}
	versions, err := d.strings(ctx, `SELECT CAST(version AS TEXT) FROM counterfoil_schema ORDER BY 1`)
	if err != nil {
		return 0, fmt.Errorf("table counterfoil_schema is not Counterfoil's: %w", err)
	}
	return len(versions), nil
}
