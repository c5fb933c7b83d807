//go:build linux

package faults

import (
	"testing"
	"time"
)

// pauseLength is how long a process stands still: longer than clients and
// verifiers wait.
const pauseLength = 4 * time.Second

// A node that stands still, as a machine does that is moved: the other goes
// on, verifiers behind it know that what they know is old, and when it goes
// on it mints for nobody who was revoked meanwhile.
func TestPauseNode(t *testing.T) {
	t.Parallel()
	database := newDatabase(t)
	s := newSystem(t, database, database, database)
	s.start()
	for i := range 2 {
		node := s.nodes[i]
		s.goOn(300)
		node.pause()
		paused := time.Now()
		s.wait("the verifier behind it knows how old its knowledge is", pauseLength, func() bool {
			stats := s.watchers[i].verifier.Stats()
			return stats.FeedAgeKnown && stats.FeedAge > feedBound
		})
		s.goOn(300)
		pause(t.Context(), time.Until(paused.Add(pauseLength)))
		node.resume()
		t.Logf("ready after %s, its feed after %s", round(s.ready(node)), round(s.fresh(s.watchers[i])))
		s.recover()
	}
	s.finish()
	s.within(attemptTimeout + 2*time.Second) // whoever asked it waited in vain
}

// The database stands still, with both nodes: nobody is answered, nothing is
// lost, all goes on by itself.
func TestPausePostgreSQL(t *testing.T) {
	t.Parallel()
	pg := startPostgres(t, folder(t))
	s := newSystem(t, pg.URL, pg.URL, pg.URL)
	s.start()
	s.goOn(300)
	if err := pg.Pause(); err != nil {
		t.Fatal(err)
	}
	paused := time.Now()
	t.Logf("not ready after %s", round(s.notReady(s.nodes...)))
	pause(t.Context(), time.Until(paused.Add(pauseLength)))
	if err := pg.Resume(); err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %s", round(s.ready(s.nodes...)))
	s.recover()
	s.finish()
}
