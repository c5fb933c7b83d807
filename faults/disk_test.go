//go:build linux

package faults

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk mounts a file system of so many bytes. Without the right to
// mount, it returns "".
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := folder(t)
	err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size="+size)
	if errors.Is(err, syscall.EPERM) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all room that is left on a disk, until room is called.
func fill(t *testing.T, dir string) (room func()) {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for size := 1 << 20; size >= 1; {
		if _, err = file.Write(make([]byte, size)); err != nil {
			size /= 4
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// limitFiles does for a process what a full disk does: its files cannot grow
// beyond the size. 0 takes the limit away.
func limitFiles(t *testing.T, p *process, size uint64) {
	t.Helper()
	limit := unix.Rlimit{Cur: size, Max: unix.RLIM_INFINITY}
	if size == 0 {
		limit.Cur = unix.RLIM_INFINITY
	}
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		t.Fatal(err)
	}
}

// A full disk under SQLite: nothing new is taken, which is said, refreshes go
// on, and all is well as soon as there is room.
func TestDiskFullSQLite(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "8m")
	mounted := dir != ""
	if !mounted {
		dir = t.TempDir()
	}
	file := filepath.Join(dir, "counterfoil.db")
	s := newSystem(t, "sqlite:"+file, "sqlite:"+file)
	s.start()
	for range 2 {
		s.goOn(300)
		room := func() { limitFiles(t, s.nodes[0], 0) }
		if mounted {
			room = fill(t, dir)
		} else {
			limitFiles(t, s.nodes[0], 1)
		}
		s.failing(signIn, revoke, everywhere)
		s.serves(s.nodes[0])
		if readiness(s.nodes[0]) != 200 {
			t.Error("it is not ready for the refreshes that it could serve")
		}
		of := s.oracle.some(0)
		if a := s.ask(s.nodes[0], of); a.status != 200 && a.code != "session_revoked" {
			t.Errorf("a refresh on a full disk: %d %s", a.status, a.problem)
		}
		room()
		s.recover()
	}
	s.finish()
}

// A full disk under PostgreSQL.
func TestDiskFullPostgreSQL(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "160m")
	if dir == "" {
		t.Skip("only root may mount the small disk that PostgreSQL fills")
	}
	pg := startPostgres(t, dir)
	s := newSystem(t, pg.URL, pg.URL, pg.URL)
	s.start()
	for range 2 {
		s.goOn(300)
		room := fill(t, dir)
		s.failing(signIn, revoke, everywhere)
		room()
		s.recover()
	}
	s.finish()
}
