package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const (
	// walMuch is a write-ahead log that nobody empties: SQLite does by itself
	// at 4 MB unless a reader never ends.
	walMuch     = 256 << 20
	megabyte    = 1 << 20
	freeWarn    = 1024 * megabyte
	freeFail    = 100 * megabyte
	noDiskLimit = -1
)

// checkSQLite looks at the file, its settings and its disk.
func checkSQLite(ctx context.Context, d *database) (found []finding) {
	wal, err := writesAhead(d.path)
	switch {
	case err != nil:
		return []finding{fail("journal", "its settings cannot be read: "+oneLine(err.Error()), connectionHelp(d))}
	case !wal:
		found = append(found, warn("journal", "journal_mode is not wal: readers and the writer wait for each other", "counterfoil serve sets it when it starts; if it stays so, put the file on a local disk"))
	default:
		found = append(found, ok("journal", "write-ahead (wal)"))
	}
	synchronous, err := d.strings(ctx, `PRAGMA synchronous`)
	if err != nil || len(synchronous) != 1 || synchronous[0] < "2" {
		found = append(found, fail("synchronous", fmt.Sprintf("it is %v (%v), not FULL: a power failure could undo a revocation", synchronous, err), "use sqlstore.SQLiteDSN, as counterfoil serve does"))
	} else {
		found = append(found, ok("synchronous", "FULL: what was acknowledged is on the disk"))
	}
	found = append(found, judgeFile(d.path)...)
	return append(found, judgeDisk(d.path)...)
}

// writesAhead reads from the file itself whether it is in WAL mode: 2 as the
// version of its format (sqlite.org/fileformat.html).
func writesAhead(path string) (wal bool, err error) {
	file, err := os.Open(path)
	if err != nil {
		return false, withoutPath(err)
	}
	var version [1]byte
	_, err = file.ReadAt(version[:], 18)
	return version[0] == 2, errors.Join(err, file.Close())
}

func judgeFile(path string) (found []finding) {
	info, err := os.Stat(path)
	if err != nil {
		return []finding{fail("file", err.Error(), "mend --database")}
	}
	if os.PathSeparator == '/' && info.Mode().Perm()&0o077 != 0 {
		found = append(found, warn("file", fmt.Sprintf("other users of this machine may read it (mode %04o): addresses, password hashes, who signed in from where", info.Mode().Perm()), fmt.Sprintf("chmod 600 %s*", path)))
	} else {
		found = append(found, ok("file", "%s, only its owner may read it", megabytes(info.Size())))
	}
	if wal, err := os.Stat(path + "-wal"); err == nil && wal.Size() > walMuch {
		found = append(found, warn("write-ahead log", fmt.Sprintf("%s: something reads for very long, and keeps it from being emptied", megabytes(wal.Size())), "end backups and shells that hold the database open: fuser "+path))
	}
	return found
}

func judgeDisk(path string) []finding {
	folder := filepath.Dir(path)
	if whole, err := filepath.Abs(folder); err == nil {
		folder = whole
	}
	disk, err := diskOf(folder)
	if err != nil {
		return []finding{warn("disk", fmt.Sprintf("its free space cannot be found out: %v", err), "look by hand: df "+folder)}
	}
	var found []finding
	if disk.network != "" {
		found = append(found, fail("disk", fmt.Sprintf("%s is on %s: SQLite's locks and its write-ahead log want a local disk, or the file is damaged one day", folder, disk.network), "move the file to a local disk; for several machines use PostgreSQL"))
	}
	return append(found, judgeFree(folder, disk.free))
}

func judgeFree(folder string, free int64) finding {
	const do = "free some, or move the file; when it is full nothing is minted, and nothing is lost"
	switch {
	case free == noDiskLimit:
		return ok("disk space", "not bounded")
	case free < freeFail:
		return fail("disk space", fmt.Sprintf("%s free in %s", megabytes(free), folder), do)
	case free < freeWarn:
		return warn("disk space", fmt.Sprintf("%s free in %s: at some 250 bytes a session, room for %d thousand more", megabytes(free), folder, free/250/1000), do)
	}
	return ok("disk space", "%s free in %s", megabytes(free), folder)
}

func megabytes(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GB", n>>30)
	case n < megabyte:
		return fmt.Sprintf("%d kB", (n+1023)>>10)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/megabyte)
}

// disk is what a folder stands on.
type disk struct {
	free    int64  // bytes for this user; noDiskLimit: it is not told
	network string // kind of the file system, when it is a remote one
}
