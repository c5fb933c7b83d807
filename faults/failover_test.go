//go:build linux

package faults

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

// pair starts a server and a standby of it, and returns the address of both.
func pair(t *testing.T, synchronous bool) (primary, standby *testenv.Postgres, both string) {
	t.Helper()
	dir := folder(t)
	primary = startPostgres(t, dir)
	standby, err := testenv.StartStandby(t.Context(), primary, dir, synchronous)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Stop(); err != nil {
			t.Error(err)
		}
	})
	u := parse(t, primary.URL)
	query := u.Query()
	query.Set("target_session_attrs", "read-write")
	return primary, standby, (&url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host + "," + parse(t, standby.URL).Host, Path: u.Path, RawQuery: query.Encode()}).String()
}

// kill -9 of the primary, and promotion of a synchronous standby: nothing
// that was acknowledged is lost, and nodes find the new primary by themselves.
func TestFailoverPostgreSQL(t *testing.T) {
	t.Parallel()
	primary, standby, both := pair(t, true)
	s := newSystem(t, both, both, both)
	s.start()
	s.goOn(400)
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	s.notReady(s.nodes...)
	began := time.Now()
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	promoted := time.Now()
	s.ready(s.nodes...)
	t.Logf("the promotion took %s, the nodes %s more", round(promoted.Sub(began)), round(time.Since(promoted)))
	s.recover()
	for _, w := range s.watchers {
		t.Logf("the feed %s after the promotion", round(s.fresh(w)))
	}
	s.goOn(300)
	s.finish()
}

// A standby that nobody waits for lacks the last moments when it is promoted.
// The nodes say so when they start; those that live on tell it again what they
// know of the revocations that it lacks.
func TestFailoverAsynchronous(t *testing.T) {
	t.Parallel()
	primary, standby, both := pair(t, false)
	s := newSystem(t, both, both, both)
	s.start()
	s.goOn(400)
	if text, _ := s.nodes[0].log.read(); !strings.Contains(text, "synchronous_standby_names is empty") {
		t.Errorf("no warning that the standby may lack something:\n%s", text)
	}
	if err := standby.Pause(); err != nil { // it receives nothing any more
		t.Fatal(err)
	}
	s.oracle.lose(time.Now().Add(-time.Second))
	s.goOn(200)
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.ready(s.nodes...)
	s.recover()
	began := time.Now()
	s.settle()
	t.Logf("every lost revocation was back within %s", round(time.Since(began)))
	s.oracle.mended()
	s.goOn(300)
	s.finish()
	t.Logf("%d sign-ins were lost", s.oracle.lost)
}
