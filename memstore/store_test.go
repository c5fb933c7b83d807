package memstore

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(_ *testing.T, clock func() time.Time) storetest.Stores {
		s := New(Clock(clock))
		return storetest.Stores{Store: s, Users: s.Users()}
	})
}

// The store takes its time from the bubble's clock and leaves no goroutine.
func TestInSynctest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		now := time.Now()
		snap, err := s.Sessions().Insert(t.Context(), counterfoil.Session{
			ID: "id", Subject: "ann", CreatedAt: now, LastActiveAt: now, IdleTimeout: time.Hour, ExpiresAt: now.Add(24 * time.Hour),
		})
		if err != nil || snap.Session.Status(snap.Now) != counterfoil.StatusActive {
			t.Fatalf("got %+v, error %v; want an active session", snap, err)
		}
		time.Sleep(time.Hour)
		snap, err = s.Sessions().Snapshot(t.Context(), "id")
		if err != nil || snap.Session.Status(snap.Now) != counterfoil.StatusExpired {
			t.Errorf("got %+v, error %v; want an expired session", snap, err)
		}
	})
}

func TestCountersDoNotPileUp(t *testing.T) {
	now := time.Date(2031, 5, 4, 12, 0, 0, 0, time.UTC)
	s := New(Clock(func() time.Time { return now }))
	for i := range 1000 {
		now = now.Add(time.Second)
		err := s.Users().Throttle(t.Context(), []string{fmt.Sprint(i)}, func(c []directory.Counter) error {
			c[0].Failures, c[0].ExpiresAt = 1, now.Add(10*time.Second)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// Ten are in force; how many of the others wait to be found is chance.
	if n := len(s.counters); n > 200 {
		t.Errorf("%d counters are kept, of which 10 are in force", n)
	}
}
