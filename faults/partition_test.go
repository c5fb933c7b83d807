//go:build linux

package faults

import (
	"strings"
	"testing"
	"time"
)

// A network that loses what one of two nodes and the database say to one
// another: the other node goes on, this one says that it is not ready, keeps
// telling its keys and its feed, and is back by itself.
func TestPartitionDatabase(t *testing.T) {
	for name, cut := range map[string]func(*proxy){
		"both ways":    func(p *proxy) { p.cut(false, false) },
		"to database":  func(p *proxy) { p.cut(false, true) },
		"to node":      func(p *proxy) { p.cut(true, false) }, // it commits, and nobody hears
		"half forgets": func(p *proxy) { p.forget() },         // open connections only
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := newDatabase(t)
			line, way := between(t, database)
			s := newSystem(t, database, way, database)
			s.start()
			s.goOn(300)

			began := time.Now()
			cut(line)
			forgetful := strings.HasPrefix(name, "half")
			if !forgetful {
				t.Logf("not ready after %s", round(s.notReady(s.nodes[0])))
				s.serves(s.nodes[0])
			}
			s.goOn(300)
			if !forgetful {
				s.wait("the verifier behind it knows how old its knowledge is", patience, func() bool {
					stats := s.watchers[0].verifier.Stats()
					return stats.FeedAgeKnown && stats.FeedAge > time.Second && stats.FeedAge < time.Since(began)+time.Second
				})
			}
			line.heal()
			t.Logf("ready %s after the network", round(s.ready(s.nodes[0])))
			t.Logf("the feed after %s", round(s.fresh(s.watchers[0])))
			s.recover()
			s.finish()
		})
	}
}

// serves fails the test if the node does not tell its keys.
func (s *system) serves(node *process) {
	s.t.Helper()
	if a := get(node.url + "/.well-known/jwks.json"); a.status != 200 {
		s.t.Errorf("the keys of %s: %d %s", node.url, a.status, a.problem)
	}
	if a := get(node.url + "/healthz"); a.status != 200 {
		s.t.Errorf("the health of %s: %d %s", node.url, a.status, a.problem)
	}
}

// fresh returns when the verifier hears of revocations as they come.
func (s *system) fresh(w *watcher) time.Duration {
	s.t.Helper()
	return s.wait(w.name+" is up to date", patience, func() bool {
		stats := w.verifier.Stats()
		return stats.FeedAgeKnown && stats.FeedAge < feedBound
	})
}
