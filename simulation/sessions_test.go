package simulation

import (
	"context"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/memstore"
)

// sessions is a nodeStore as its SessionStore. Epochs are told with the
// database's base added.
type sessions struct{ *nodeStore }

func (s sessions) Snapshot(ctx context.Context, id string) (snap counterfoil.Snapshot, err error) {
	if err := s.before(ctx, "snapshot"); err != nil {
		if old, ok := s.copyOf(id); ok && s.bug("cut-off node mints from a copy") {
			old.Now = s.n.now()
			return old, nil
		}
		return snap, err
	}
	err = s.db.read(func(m *memstore.Store, base int64) (err error) {
		snap, err = m.Sessions().Snapshot(ctx, id)
		raise(&snap, base)
		return err
	})
	if err == nil && s.bug("cut-off node mints from a copy") {
		s.keepCopy(id, snap)
	}
	if err == nil && s.bug("iat of after a pause") {
		// As if this call had read when the last one did, had stood still, and
		// had looked at the clock only then.
		if old, ok := s.copyOf(id); ok && s.chance(0.3) {
			old.Now = snap.Now
			return old, nil
		}
		s.keepCopy(id, snap)
	}
	s.mu.Lock()
	pause := s.pause
	s.pause = 0
	s.mu.Unlock()
	if pause > 0 {
		// The process stands still here, between reading and signing.
		_ = sleep(context.WithoutCancel(ctx), pause)
	}
	if err == nil && s.bug("the skew of the clocks is not looked at") {
		snap.Now = s.n.now()
	}
	if err == nil {
		err = s.after("snapshot")
	}
	return snap, err
}

func (s sessions) copyOf(id string) (counterfoil.Snapshot, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap, ok := s.copies[id]
	return snap, ok
}

func (s sessions) keepCopy(id string, snap counterfoil.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copies[id] = snap
}

func raise(snap *counterfoil.Snapshot, base int64) {
	snap.Session.Epoch0 += base
	snap.KeyVersion += base
	raiseSubject(&snap.Subject, base)
}

func raiseSubject(sub *counterfoil.Subject, base int64) {
	sub.Epoch += base
	if sub.SignedOutBelow > 0 {
		sub.SignedOutBelow += base
	}
}

func (s sessions) Insert(ctx context.Context, given counterfoil.Session) (snap counterfoil.Snapshot, err error) {
	var kept counterfoil.Session
	_, err = s.write(ctx, "insert", func(m *memstore.Store, base int64) ([]counterfoil.Revocation, error) {
		kept = given
		if kept.Epoch0 > 0 {
			// One from before the database went back is below everything.
			kept.Epoch0 = max(kept.Epoch0-base, 1)
		}
		if s.bug("sign-in with the epoch of the insert") {
			kept.Epoch0 = 0
		}
		var err error
		snap, err = m.Sessions().Insert(ctx, kept)
		kept.Epoch0 = snap.Session.Epoch0
		raise(&snap, base)
		return nil, err
	}, func(m *memstore.Store) { _, _ = m.Sessions().Insert(context.Background(), kept) })
	if err == nil && s.bug("the skew of the clocks is not looked at") {
		snap.Now = s.n.now()
	}
	return snap, err
}

func (s sessions) Update(ctx context.Context, id string, retain time.Duration, fn func(*counterfoil.Session) (bool, error)) (after counterfoil.Session, revocations []counterfoil.Revocation, err error) {
	var kept counterfoil.Session
	var stale bool
	revocations, err = s.write(ctx, "update", func(m *memstore.Store, base int64) (r []counterfoil.Revocation, err error) {
		after, r, err = m.Sessions().Update(ctx, id, retain, func(s *counterfoil.Session) (_ bool, err error) {
			stale, err = fn(s)
			return stale, err
		})
		kept = after
		after.Epoch0 += base
		return r, err
	}, func(m *memstore.Store) {
		_, _, _ = m.Sessions().Update(context.Background(), id, retain, func(s *counterfoil.Session) (bool, error) {
			*s = kept
			return stale, nil
		})
	})
	return after, revocations, err
}

func (s sessions) End(ctx context.Context, r counterfoil.EndRequest) (ended counterfoil.Ended, err error) {
	ended.Revocations, err = s.write(ctx, "end", func(m *memstore.Store, _ int64) ([]counterfoil.Revocation, error) {
		var err error
		ended, err = m.Sessions().End(ctx, r)
		return ended.Revocations, err
	}, func(m *memstore.Store) { _, _ = m.Sessions().End(context.Background(), r) })
	return ended, err
}

func (s sessions) Advance(ctx context.Context, a counterfoil.Advance) (done counterfoil.Advanced, err error) {
	revocations, err := s.write(ctx, "advance", func(m *memstore.Store, base int64) ([]counterfoil.Revocation, error) {
		var err error
		done, err = s.advance(m, a)
		raiseSubject(&done.Subject, base)
		if done.Kept != nil {
			done.Kept.Epoch0 += base
		}
		if err != nil {
			return nil, err
		}
		return []counterfoil.Revocation{done.Revocation}, nil
	}, func(m *memstore.Store) { _, _ = m.Sessions().Advance(context.Background(), a) })
	if len(revocations) > 0 {
		done.Revocation = revocations[0]
	}
	return done, err
}

// advance is the store's, or one with a planted bug.
func (s sessions) advance(m *memstore.Store, a counterfoil.Advance) (counterfoil.Advanced, error) {
	told := a
	switch {
	case s.bug("advance without signed-out-below"):
		a.SignOut = false
	case s.bug("the kept session is not kept"):
		a.Keep = nil
	}
	done, err := m.Sessions().Advance(context.Background(), a)
	e := &done.Revocation
	if told.SignOut {
		e.RevokedBelow = e.StaleBelow
		if told.Keep != nil && done.Kept != nil {
			e.Except = told.Keep.ID
		}
	}
	return done, err
}

func (s sessions) Subject(ctx context.Context, id string) (sub counterfoil.Subject, err error) {
	if err := s.before(ctx, "subject"); err != nil {
		return sub, err
	}
	err = s.db.read(func(m *memstore.Store, base int64) (err error) {
		sub, err = m.Sessions().Subject(ctx, id)
		raiseSubject(&sub, base)
		return err
	})
	return sub, err
}

func (s sessions) List(ctx context.Context, q counterfoil.ListQuery) (list []counterfoil.Session, next string, err error) {
	if err := s.before(ctx, "list"); err != nil {
		return nil, "", err
	}
	err = s.db.read(func(m *memstore.Store, _ int64) (err error) {
		list, next, err = m.Sessions().List(ctx, q)
		return err
	})
	return list, next, err
}

func (s sessions) Touch(ctx context.Context, touches []counterfoil.Touch) error {
	if err := s.before(ctx, "touch"); err != nil {
		return err
	}
	return s.db.read(func(m *memstore.Store, _ int64) error { return m.Sessions().Touch(ctx, touches) })
}

func (s sessions) Purge(ctx context.Context, _ time.Time, _ int) (int, error) {
	return 0, s.before(ctx, "purge") // runs are shorter than what is retained
}
