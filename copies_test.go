package counterfoil

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

func TestElapsed(t *testing.T) {
	const s = time.Second
	for _, tc := range []struct {
		name       string
		mono, wall time.Duration
		want       time.Duration
		ok         bool
	}{
		{"both run", 60 * s, 60 * s, 60 * s, true},
		{"suspended", 60 * s, 600 * s, 600 * s, true},
		{"set forth", 1 * s, 3600 * s, 3600 * s, true},
		{"set back a little", 60 * s, 56 * s, 60 * s, true},
		{"set back", 60 * s, 54 * s, 60 * s, false},
		{"set back beyond the read", 60 * s, -1, 60 * s, false},
		{"just read", 0, 0, 0, true},
	} {
		if got, ok := elapsed(tc.mono, tc.wall); got != tc.want || ok != tc.ok {
			t.Errorf("%s: %s, %v", tc.name, got, ok)
		}
	}
}

func copied(n int, at time.Time) *Snapshot {
	sid := fmt.Sprintf("%024d", n)
	return &Snapshot{
		Session: Session{
			ID: sid, Subject: fmt.Sprintf("subject-%d", n/2), ClientID: "default", IdleTimeout: time.Hour, LastActiveAt: at, ExpiresAt: at.Add(time.Hour),
			Methods: []string{"pwd"}, Device: Device{UserAgent: string(make([]byte, 120)), IP: "192.0.2.1"},
		},
		Subject: Subject{Epoch: 1, Rights: Rights{Roles: []string{"customer"}}},
	}
}

func TestCopiesAreBounded(t *testing.T) {
	at := time.Now()
	c := newCopies(100, 5*time.Minute)
	for i := range 1000 {
		at = at.Add(time.Millisecond)
		c.keep(copied(i, at), at, []byte("rest"))
	}
	if _, ok := c.get(fmt.Sprintf("%024d", 899)); ok || c.len() != 100 || len(c.bySID) != 100 || len(c.subjects) != 50 {
		t.Errorf("%d copies of %d, %d subjects", c.len(), len(c.bySID), len(c.subjects))
	}
	if _, ok := c.get(fmt.Sprintf("%024d", 900)); !ok {
		t.Error("a copy that was read later than the others is gone")
	}
	c.keep(copied(900, at), at, nil) // read again: it is the youngest now
	c.keep(copied(900, at), at.Add(-time.Minute), nil)
	if got, _ := c.get(fmt.Sprintf("%024d", 900)); !got.readAt.Equal(at) {
		t.Error("an older read took the place of a younger one")
	}
	c.removeSubject("subject-450") // 900 and 901
	c.remove(fmt.Sprintf("%024d", 902))
	if c.len() != 97 || len(c.subjects) != 49 {
		t.Errorf("%d copies, %d subjects", c.len(), len(c.subjects))
	}
	// What is too old to be minted from makes room.
	at = at.Add(6 * time.Minute)
	if c.keep(copied(5000, at), at, nil); c.len() != 1 || len(c.subjects) != 1 {
		t.Errorf("%d copies, %d subjects", c.len(), len(c.subjects))
	}
	if !c.usable(at) || c.usable(at.Add(4*time.Minute+56*time.Second)) {
		t.Error("usable until the last one is too old")
	}
	if c.clear(); c.len() != 0 || len(c.bySID)+len(c.subjects) != 0 || c.usable(at) {
		t.Error("cleared, and something is left")
	}
}

func TestCopiesTakeLittleMemory(t *testing.T) {
	const n = 20_000
	at := time.Now()
	before := heap()
	c := newCopies(n, time.Hour)
	for i := range n {
		c.keep(copied(i, at), at, make([]byte, 200))
	}
	each := (heap() - before) / n
	t.Logf("%d bytes a copy", each)
	if each > 1500 {
		t.Errorf("%d bytes a copy, the documents say 1.5 kB", each)
	}
	runtime.KeepAlive(c)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
