package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

func backupCommand() *command {
	return &command{
		name:  "backup",
		args:  "FILE",
		short: "Copy a SQLite database as it is at one moment, while servers run",
		long: `FILE must not be there yet; it appears, mode 0600, once it is complete. Copying the
database with cp would miss what is in its write-ahead log.

The seal is not in it: keep FILE.seal in another place, once. Without it the signing
keys cannot be opened; with both a thief has them. PostgreSQL has pg_basebackup and
pg_dump. After putting a backup back, run counterfoil restored.`,
		examples: []string{"counterfoil backup --database sqlite:/var/lib/counterfoil/counterfoil.db /backup/counterfoil-$(date +%F).db"},
		setup: func(a *app, f *flags) func(context.Context, []string) error {
			value := databaseFlag(f)
			f.configFlag()
			return func(ctx context.Context, args []string) (err error) {
				target, err := oneArg(args, "the file to make")
				if err != nil {
					return err
				}
				db, err := parseDatabase(string(*value))
				if err != nil {
					return err
				}
				if !db.isSQLite() {
					return errors.New("backup is for SQLite: PostgreSQL has pg_basebackup, with the log archived, or pg_dump")
				}
				defer func() { err = errors.Join(err, db.close()) }()
				if err := db.backup(ctx, target); err != nil {
					return err
				}
				info, err := os.Stat(target)
				if err != nil {
					return err
				}
				newPrinter(a).printf("%s: %s. The seal is not in it.\n", target, megabytes(info.Size()))
				return nil
			}
		},
	}
}

// backup copies the database into a new file.
func (d *database) backup(ctx context.Context, target string) (err error) {
	found, err := d.checkFile()
	if err != nil {
		return err
	}
	if !found {
		return d.fail(errors.New("there is no such file"))
	}
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already: name a new file", target)
	}
	if err := d.connect(); err != nil {
		return err
	}
	// Made here, not by SQLite: nobody else may read it.
	file, err := os.CreateTemp(filepath.Dir(target), filepath.Base(target)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("%s: %w", target, withoutPath(err))
	}
	defer func() {
		if removing := os.Remove(file.Name()); removing != nil && !errors.Is(removing, fs.ErrNotExist) {
			err = errors.Join(err, removing)
		}
	}()
	_, err = d.db.ExecContext(ctx, `VACUUM INTO ?`, file.Name())
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return d.fail(err)
	}
	// A link, not a rename: what came meanwhile stays.
	if err := os.Link(file.Name(), target); err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	return syncFolder(filepath.Dir(target))
}
