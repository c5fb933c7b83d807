//go:build linux

package faults

import (
	"path/filepath"
	"testing"
)

// kill -9 of the one node over SQLite, and a restart.
func TestKillNodeSQLite(t *testing.T) {
	t.Parallel()
	database := "sqlite:" + filepath.Join(t.TempDir(), "counterfoil.db")
	s := newSystem(t, database, database)
	s.start()
	for range 3 {
		s.goOn(400)
		s.nodes[0].kill()
		s.nodes[0].start()
		s.recover()
	}
	s.finish()
}
