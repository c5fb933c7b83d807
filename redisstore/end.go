package redisstore

import (
	"context"
	"time"
	"unicode/utf8"

	"github.com/redis/rueidis"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/sqlstore"
)

func (s sessions) End(ctx context.Context, q counterfoil.EndRequest) (counterfoil.Ended, error) {
	ended, facts, err := s.end(ctx, s.journal, q)
	if err == nil && len(facts) > 0 {
		if err = s.tell(ctx, facts); err != nil {
			err = notTold(err)
		}
	}
	if err == nil && ended.Session.End == nil { // another call or node was first
		var snap counterfoil.Snapshot
		snap, _, err = s.snapshot(ctx, q.ID)
		ended.Session = snap.Session
	}
	if err != nil {
		return counterfoil.Ended{}, failed("end session", err)
	}
	return ended, nil
}

// end commits the end in SQL, and returns what is to be told.
func (s *Store) end(ctx context.Context, journal *sqlstore.Journal, q counterfoil.EndRequest) (ended counterfoil.Ended, facts []sqlstore.Fact, err error) {
	if err := checkEnd(&q.End); err != nil {
		return ended, nil, err
	}
	snap, own, more, err := s.look(ctx, q.ID, "derived")
	switch {
	case err != nil:
		return ended, nil, err
	case q.Subject != "" && q.Subject != own.Subject:
		return ended, nil, counterfoil.ErrNotFound
	case snap.Session.End != nil:
		ended.Session = snap.Session
		if end := own.End; end != nil && own.endedBelow == 0 && snap.Now.Sub(end.At) < q.Retain {
			ended.Revocations, facts, err = journal.EndAgain(ctx, q.ID, *end, q.Retain)
		}
		return ended, facts, err
	}
	family := []sqlstore.Member{{ID: q.ID, Subject: own.Subject, Epoch0: own.Epoch0}}
	seen := map[string]bool{q.ID: true}
	derived, err := derivedOf(more)
	for i := 0; i < len(family); i++ {
		if i > 0 {
			derived, err = s.derived(ctx, family[i].ID)
		}
		if err != nil {
			return ended, nil, err
		}
		below, err := s.members(ctx, derived, seen)
		if err != nil {
			return ended, nil, err
		}
		family = append(family, below...)
	}
	done, err := journal.End(ctx, family, true, q.End, q.Retain)
	if err != nil {
		return ended, nil, err
	}
	ended = counterfoil.Ended{Session: snap.Session, Changed: done.Changed, Revocations: done.Revocations}
	if done.Changed {
		ended.Session.End = done.Facts[0].End
	}
	return ended, done.Facts, nil
}

// derivedOf reads the IDs of those derived from what a snapshot tells of them.
func derivedOf(more []rueidis.RedisMessage) ([]string, error) {
	if len(more) != 1 {
		return nil, errShape
	}
	return more[0].AsStrSlice()
}

// derived reads the IDs of those derived from a session.
func (s *Store) derived(ctx context.Context, id string) ([]string, error) {
	at, rest, _ := split(id)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	ids, err := s.client.Do(ctx, s.client.B().Smembers().Key(s.base(at)+"c:"+rest).Build()).AsStrSlice()
	return ids, unavailable(err)
}

// checkEnd refuses what would not come back as it is.
func checkEnd(e *counterfoil.End) error {
	for field, text := range map[string]string{"reason": string(e.Reason), "actor": e.Actor} {
		if len(text) > mostActor || !utf8.ValidString(text) {
			return &counterfoil.FieldError{Field: field, Message: "must be UTF-8 of at most 255 bytes"}
		}
	}
	return nil
}

func (s sessions) Update(ctx context.Context, id string, retain time.Duration,
	fn func(*counterfoil.Session) (bool, error)) (counterfoil.Session, []counterfoil.Revocation, error) {
	for {
		snap, own, err := s.snapshot(ctx, id)
		if err != nil {
			return counterfoil.Session{}, nil, failed("change session", err)
		}
		at, rest, _ := split(id)
		was := snap.Session
		next := was
		stale, err := fn(&next)
		if err != nil {
			return counterfoil.Session{}, nil, err
		}
		next = rounded(next)
		next.ID, next.Subject, next.ClientID, next.ParentID, next.CreatedAt, next.Epoch0 =
			was.ID, was.Subject, was.ClientID, was.ParentID, was.CreatedAt, was.Epoch0
		next.End = own.End
		changed := record{Session: next, rev: own.rev + 1, endedBelow: own.endedBelow}
		pending := ""
		if stale {
			pending = rest + ":" + decimal(int64(changed.rev))
		}
		// First the change, then the epoch: an access token minted between the
		// two is stale at once. That the epoch has to grow is noted with the change.
		status, err := s.swap(ctx, at, rest, own.rev, &changed, decimal(snap.Subject.SignedOutBelow), pending)
		switch {
		case err != nil:
			return counterfoil.Session{}, nil, failed("change session", err)
		case status == "none":
			return counterfoil.Session{}, nil, failed("change session", counterfoil.ErrNotFound)
		case status == "changed" && ctx.Err() == nil:
			continue
		case status == "changed":
			return counterfoil.Session{}, nil, failed("change session", ctx.Err())
		}
		var revocations []counterfoil.Revocation
		if stale {
			done, err := s.outdate(ctx, at, was.Subject, pending, retain)
			if err != nil {
				return counterfoil.Session{}, nil, failed("change session", err)
			}
			revocations = append(revocations, done)
		}
		data, err := changed.encode() // shares no memory with what fn gave
		if err != nil {
			return counterfoil.Session{}, nil, failed("change session", err)
		}
		again, err := readRecord(id, data)
		if err != nil {
			return counterfoil.Session{}, nil, failed("change session", err)
		}
		again.End = was.End
		return again.Session, revocations, nil
	}
}

// outdate raises the epoch of a subject after a change of a session, and
// takes the note away that this is to be done.
func (s *Store) outdate(ctx context.Context, at shard, subject, pending string, retain time.Duration) (counterfoil.Revocation, error) {
	done, fact, err := s.journal.Advance(ctx, counterfoil.Advance{Subject: subject, Retain: retain}, sqlstore.Kept{})
	if err != nil {
		return done.Revocation, err
	}
	if err := s.tell(ctx, []sqlstore.Fact{fact}); err != nil {
		return done.Revocation, notTold(err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = s.client.Do(ctx, s.client.B().Zrem().Key(s.base(at)+"p").Member(pending).Build()).Error()
	if err != nil {
		s.log.Debug("a change that is done stays noted and will be done once more", "error", err)
	}
	return done.Revocation, nil
}
