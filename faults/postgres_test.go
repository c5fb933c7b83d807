//go:build linux

package faults

import (
	"testing"
	"time"
)

// kill -9 of one of two nodes: the other goes on, and the first is back when
// it is started.
func TestKillNodePostgreSQL(t *testing.T) {
	t.Parallel()
	database := newDatabase(t)
	s := newSystem(t, database, database, database)
	s.start()
	for round := range 4 {
		node := s.nodes[round%2]
		s.goOn(300)
		node.kill()
		s.goOn(300)
		node.start()
		s.recover()
	}
	s.finish()
	// Whoever asks the node that died asks the other next.
	s.within(time.Second)
}

// kill -9 of PostgreSQL, all its processes at once, and a restart.
func TestKillPostgreSQL(t *testing.T) {
	t.Parallel()
	pg := startPostgres(t, folder(t))
	s := newSystem(t, pg.URL, pg.URL, pg.URL)
	s.start()
	for range 3 {
		s.goOn(300)
		if err := pg.Kill(); err != nil {
			t.Fatal(err)
		}
		s.notReady(s.nodes...)
		began := time.Now()
		if err := pg.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		up := time.Now()
		s.ready(s.nodes...)
		s.recover()
		t.Logf("PostgreSQL took %s to start, the nodes %s more", round(up.Sub(began)), round(time.Since(up)))
	}
	s.finish()
}
