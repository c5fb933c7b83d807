package feed

import (
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/revoked"
)

// Entries 6 and 7 were in the snapshot at position 4, and in no frame: a reader
// who has come to 5 elsewhere may miss them, and gets all.
func TestBeginKnowsWhatNoFrameHolds(t *testing.T) {
	s := NewServer(ServerConfig{Node: "n", Retain: time.Minute, KeyVersion: func() int64 { return 1 }, Snapshot: func() []revoked.Entry { return nil }, Wake: func() {}})
	defer s.Close()
	s.Begin(Position{7, 4}, 7, time.Now())
	s.Publish(Position{7, 8}, []revoked.Entry{{Kind: revoked.Session, ID: "five", Position: 8}}, time.Now())
	for seq, want := range map[int64]bool{4: false, 5: false, 6: false, 7: true, 8: true} {
		if _, ok := s.resume(Position{7, seq}); ok != want {
			t.Errorf("a reader at %d goes on without a snapshot: %v", seq, ok)
		}
	}
}

// An age counts by the wall clock too: the monotonic one stands still while a
// machine is suspended.
func TestAgeCountsBothClocks(t *testing.T) {
	now := time.Now()
	suspended := now.Round(0).Add(-time.Hour) // an hour by the wall clock
	if got := elapsed(now, suspended); got < time.Hour {
		t.Errorf("%v", got)
	}
	if got := elapsed(now, now.Add(-time.Second)); got < time.Second || got > time.Second+time.Millisecond {
		t.Errorf("%v", got)
	}
}
