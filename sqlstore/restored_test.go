package sqlstore_test

import (
	"errors"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/sqlstore"
)

func eachSide(t *testing.T, run func(t *testing.T, s side)) {
	for name, make := range sides {
		t.Run(name, func(t *testing.T) { run(t, make(t)) })
	}
}

// lived is a database with sessions in every state and a key.
type lived struct {
	store                      *sqlstore.Store
	live, ended, signedOut     string
	beforeHead                 counterfoil.FeedHead
	beforeVersion, beforeEpoch int64
}

func newLived(t *testing.T, s side) *lived {
	t.Helper()
	l := &lived{store: opened(t, s.store(s.db))}
	all := l.store.Sessions()
	l.live = insert(t, all, session("ann")).Session.ID
	l.ended = insert(t, all, session("ann")).Session.ID
	if _, err := all.End(t.Context(), endRequest(l.ended)); err != nil {
		t.Fatal(err)
	}
	l.signedOut = insert(t, all, session("bob")).Session.ID
	done, err := all.Advance(t.Context(), signOut("bob"))
	if err != nil {
		t.Fatal(err)
	}
	l.beforeEpoch = done.Subject.Epoch
	ring, _, err := l.store.Catalog().UpdateKeys(t.Context(), time.Minute, func(r *counterfoil.KeyRing) error {
		for _, k := range []struct {
			id    string
			state counterfoil.KeyState
		}{{"k1", counterfoil.KeyActive}, {"k2", counterfoil.KeyNext}, {"k3", counterfoil.KeyRetiring}, {"k4", counterfoil.KeyRevoked}} {
			r.Keys = append(r.Keys, counterfoil.KeyRecord{ID: k.id, Algorithm: "ES256", State: k.state, Public: []byte{1}, Sealed: []byte{2}, CreatedAt: time.Now()})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	l.beforeVersion = ring.Version
	if l.beforeHead, err = l.store.Feed().Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lived) reason(t *testing.T, id string) counterfoil.Reason {
	t.Helper()
	snap, err := l.store.Sessions().Snapshot(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if snap.Session.End == nil {
		return ""
	}
	return snap.Session.End.Reason
}

func TestRestored(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		l := newLived(t, s)
		all := l.store.Sessions()
		floor := time.Now().UnixMicro() - 1000
		done, err := s.store(s.db).Restored(t.Context(), sqlstore.Restoration{Actor: "operator"})
		if err != nil {
			t.Fatal(err)
		}
		if done.Number < floor || done.Subjects != 2 || done.Sessions != 1 || done.Keys != 3 {
			t.Errorf("%+v", done)
		}
		for id, want := range map[string]counterfoil.Reason{l.live: sqlstore.ReasonRestored, l.ended: counterfoil.SignedOut, l.signedOut: counterfoil.PasswordChanged} {
			if got := l.reason(t, id); got != want {
				t.Errorf("session %s ended for %q, want %q", id, got, want)
			}
		}
		head, err := l.store.Feed().Head(t.Context())
		if err != nil || head.Timeline != done.Number || head.Position < done.Number {
			t.Errorf("%+v %v", head, err)
		}
		entries, err := l.store.Feed().Read(t.Context(), l.beforeHead.Position, 100)
		if err != nil || len(entries) != 3 || entries[0].Kind.String() != "k" || entries[0].Position < done.Number {
			t.Errorf("after the old head the feed has %+v %v", entries, err)
		}
		ring, err := l.store.Catalog().Keys(t.Context())
		if err != nil || ring.Version != done.Number {
			t.Errorf("%d %v", ring.Version, err)
		}
		for _, k := range ring.Keys {
			if k.State != counterfoil.KeyRevoked || len(k.Sealed) > 0 && k.ID != "k4" {
				t.Errorf("%+v", k)
			}
		}
		// A sign-in that was under way, and a token that names an epoch of before.
		late := session("ann")
		late.Epoch0 = l.beforeEpoch
		if _, err := all.Insert(t.Context(), late); !errors.Is(err, counterfoil.ErrSignedOutMeanwhile) {
			t.Error(err)
		}
		for _, subject := range []string{"ann", "bob", "new"} {
			if snap := insert(t, all, session(subject)); snap.Subject.Epoch < done.Number || snap.Session.End != nil {
				t.Errorf("%+v", snap)
			}
		}
		// Twice is no harm, and goes above the first.
		again, err := s.store(s.db).Restored(t.Context(), sqlstore.Restoration{Actor: "operator"})
		if err != nil || again.Number <= head.Position || again.Keys != 0 {
			t.Errorf("%+v %v", again, err)
		}
	})
}

func TestRestoredKeepsSessions(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		l := newLived(t, s)
		done, err := s.store(s.db).Restored(t.Context(), sqlstore.Restoration{KeepSessions: true})
		if err != nil {
			t.Fatal(err)
		}
		for id, want := range map[string]counterfoil.Reason{l.live: "", l.ended: counterfoil.SignedOut, l.signedOut: counterfoil.PasswordChanged} {
			if got := l.reason(t, id); got != want {
				t.Errorf("session %s ended for %q, want %q", id, got, want)
			}
		}
		snap, err := l.store.Sessions().Snapshot(t.Context(), l.live)
		if err != nil || snap.Subject.Epoch != done.Number || snap.KeyVersion != done.Number {
			t.Errorf("%+v %v", snap, err)
		}
	})
}
