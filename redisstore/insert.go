package redisstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"github.com/counterfoil/counterfoil"
)

// rowAge is how old a subject's row may be when its copy is made: Redis keeps
// newer copies for longer than this.
const rowAge = 10 * time.Minute

func (s sessions) Insert(ctx context.Context, add counterfoil.Session) (counterfoil.Snapshot, error) {
	snap, err := s.insert(ctx, add)
	if err != nil {
		return counterfoil.Snapshot{}, failed("add session", err)
	}
	return snap, nil
}

func (s *Store) insert(ctx context.Context, add counterfoil.Session) (snap counterfoil.Snapshot, err error) {
	if add.ID == "" || add.Subject == "" {
		return snap, errors.New("ID and Subject must not be empty")
	}
	at, rest, ok := split(add.ID)
	if !ok || at != shardOf(add.Subject) {
		return snap, s.refuseID(ctx, &add)
	}
	if err := s.follow.fresh(ctx); err != nil {
		return snap, err
	}
	add = rounded(add)
	given := min(add.Epoch0, 1<<53) // as exact as numbers are there
	add.Epoch0, add.End = 0, nil
	data, err := (&record{Session: add}).encode()
	if err != nil {
		return snap, err
	}
	parent, far := "", false
	if add.ParentID != "" {
		in, rest, ok := split(add.ParentID)
		switch far = in != at; {
		case !ok:
			return snap, fmt.Errorf("parent: %w", counterfoil.ErrNotFound)
		case far:
			// The other shard notes it first: whoever ends the parent from now on
			// ends this one, or is found out below.
			if err := s.derive(ctx, add.ParentID, add.ID); err != nil {
				return snap, err
			}
		default:
			parent = rest
		}
	}
	before := s.guard.changes()
	list, err := s.add(ctx, at, rest, data, given, add.Subject, parent, add.ID)
	if err != nil {
		return snap, err
	}
	if far {
		if err := s.derive(ctx, add.ParentID, add.ID); err != nil {
			_, undo := s.write(ctx, removeScript, at, rest)
			return snap, errors.Join(err, undo)
		}
	}
	if err := s.guard.passFor(ctx, s, at); err != nil {
		return snap, err
	}
	snap, _, _, err = s.readSnapshot(add.ID, list)
	if err != nil || s.guard.changes() == before && s.follow.agrees(&snap) {
		return snap, err
	}
	snap, _, err = s.snapshot(ctx, add.ID)
	if err == nil && snap.Session.End != nil {
		err = counterfoil.ErrSignedOutMeanwhile
	}
	return snap, err
}

// refuseID says what is wrong with an ID that a session of the subject cannot have.
func (s *Store) refuseID(ctx context.Context, add *counterfoil.Session) error {
	if _, err := s.own(ctx, add.ID); err == nil {
		return counterfoil.ErrConflict
	}
	return &counterfoil.FieldError{Field: "ID", Message: "must begin with the shard of the subject"}
}

// add runs the script, with the subject's row where Redis has to be told.
func (s *Store) add(ctx context.Context, at shard, rest string, data []byte, given int64, subject, parent, id string) ([]rueidis.RedisMessage, error) {
	row := ""
	var readAt time.Time
	for {
		list, err := s.write(ctx, insertScript, at, rest, string(data), decimal(given), row, parent, id)
		if err != nil {
			return nil, err
		}
		switch status := text(list); status {
		case "added":
			return list[1:], nil
		case "taken":
			return nil, counterfoil.ErrConflict
		case "signed out":
			return nil, counterfoil.ErrSignedOutMeanwhile
		case "disabled":
			return nil, counterfoil.ErrSubjectDisabled
		case "subject":
			if row != "" && time.Since(readAt) < rowAge {
				return nil, errors.New("the copy of a subject is gone as soon as it is made")
			}
			readAt = time.Now()
			sub, err := s.row(ctx, at, subject)
			if err != nil {
				return nil, err
			}
			if row = string(encodeSubject(&sub)); time.Since(readAt) > rowAge {
				row = "" // suspended meanwhile
			}
		default:
			return nil, parentError(status)
		}
	}
}

// derive notes with the parent that a session is derived from it.
func (s *Store) derive(ctx context.Context, parent, id string) error {
	at, rest, _ := split(parent)
	list, err := s.write(ctx, deriveScript, at, rest, id)
	if err != nil {
		return err
	}
	if status := text(list); status != "noted" {
		return parentError(status)
	}
	return nil
}

func parentError(status string) error {
	switch status {
	case "no parent":
		return fmt.Errorf("parent: %w", counterfoil.ErrNotFound)
	case "parent ended":
		return fmt.Errorf("parent: %w", counterfoil.ErrSessionRevoked)
	}
	return fmt.Errorf("a script answered %q", status)
}
