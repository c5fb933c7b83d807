package memstore

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// session is a row; version changes with each write of it.
type session struct {
	counterfoil.Session
	version int64
}

// sessions is the Store as its SessionStore.
type sessions struct{ *Store }

func (s sessions) Snapshot(ctx context.Context, id string) (counterfoil.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return counterfoil.Snapshot{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	row, ok := s.Store.sessions[id]
	if !ok {
		return counterfoil.Snapshot{}, noSession(id)
	}
	return s.snapshot(row, s.now()), nil
}

func (s *Store) snapshot(row *session, now time.Time) counterfoil.Snapshot {
	return counterfoil.Snapshot{
		Session:    s.resolved(row),
		Subject:    s.subjects[row.Subject].clone(),
		KeyVersion: s.ring.Version,
		Now:        now,
	}
}

// resolved copies a row with its end as the subject's row may tell it.
func (s *Store) resolved(row *session) counterfoil.Session {
	c := cloneSession(row.Session)
	c.End = cloneEnd(s.endOf(row))
	return c
}

func (s *Store) endOf(row *session) *counterfoil.End {
	return s.subjects[row.Subject].EndOf(&row.Session)
}

func (s sessions) Insert(ctx context.Context, given counterfoil.Session) (counterfoil.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return counterfoil.Snapshot{}, err
	}
	if given.ID == "" || given.Subject == "" {
		return counterfoil.Snapshot{}, errors.New("insert session: ID and Subject must be set")
	}
	kept, err := keepable(given)
	if err != nil {
		return counterfoil.Snapshot{}, err
	}
	kept.End = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.Store.sessions[kept.ID]; taken {
		return counterfoil.Snapshot{}, fmt.Errorf("session %q: %w", kept.ID, counterfoil.ErrConflict)
	}
	if err := s.derivable(kept.ParentID); err != nil {
		return counterfoil.Snapshot{}, err
	}
	sub := s.peek(kept.Subject)
	// An epoch from the future would outlive the next sign-outs.
	if kept.Epoch0 == 0 || kept.Epoch0 > sub.Epoch {
		kept.Epoch0 = sub.Epoch
	}
	switch {
	case kept.Epoch0 < sub.SignedOutBelow:
		return counterfoil.Snapshot{}, counterfoil.ErrSignedOutMeanwhile
	case sub.Disabled:
		return counterfoil.Snapshot{}, counterfoil.ErrSubjectDisabled
	}
	s.subjects[kept.Subject] = sub
	row := &session{Session: kept}
	s.Store.sessions[row.ID] = row
	i, _ := slices.BinarySearchFunc(s.order, row, newestFirst)
	s.order = slices.Insert(s.order, i, row)
	if row.ParentID != "" {
		if s.children[row.ParentID] == nil {
			s.children[row.ParentID] = make(map[string]*session)
		}
		s.children[row.ParentID][row.ID] = row
	}
	return s.snapshot(row, s.now()), nil
}

// derivable says whether a session may start below the parent: it must end
// with the parent, so there is none to start below an ended one.
func (s *Store) derivable(parent string) error {
	if parent == "" {
		return nil
	}
	row, ok := s.sessions[parent]
	switch {
	case !ok:
		return fmt.Errorf("parent %w", noSession(parent))
	case s.endOf(row) != nil:
		return fmt.Errorf("parent session %q: %w", parent, counterfoil.ErrSessionRevoked)
	}
	return nil
}

func (s sessions) Update(ctx context.Context, id string, retain time.Duration, fn func(*counterfoil.Session) (bool, error)) (counterfoil.Session, []counterfoil.Revocation, error) {
	for {
		if err := ctx.Err(); err != nil {
			return counterfoil.Session{}, nil, err
		}
		seen, version, err := s.read(id)
		if err != nil {
			return counterfoil.Session{}, nil, err
		}
		changed := cloneSession(seen)
		stale, err := fn(&changed)
		if err != nil {
			return counterfoil.Session{}, nil, err
		}
		// Only Keep raises Epoch0: an update must not bring an ended session back.
		changed.ID, changed.Subject, changed.ClientID = seen.ID, seen.Subject, seen.ClientID
		changed.ParentID, changed.CreatedAt, changed.Epoch0 = seen.ParentID, seen.CreatedAt, seen.Epoch0
		changed, err = keepable(changed)
		if err != nil {
			return counterfoil.Session{}, nil, err
		}
		if after, revocations, swapped, err := s.swap(changed, version, stale, retain); swapped || err != nil {
			return after, revocations, err
		}
	}
}

func (s *Store) read(id string) (counterfoil.Session, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row, ok := s.sessions[id]
	if !ok {
		return counterfoil.Session{}, 0, noSession(id)
	}
	return s.resolved(row), row.version, nil
}

// swap writes a changed session unless its row was written after version.
func (s *Store) swap(changed counterfoil.Session, version int64, stale bool, retain time.Duration) (after counterfoil.Session, revocations []counterfoil.Revocation, swapped bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row, ok := s.sessions[changed.ID]
	if !ok {
		return after, nil, false, noSession(changed.ID)
	}
	if row.version != version {
		return after, nil, false, nil
	}
	changed.End = row.End
	row.Session = changed
	row.version++
	if stale {
		sub := s.subjects[row.Subject]
		sub.Epoch++
		revocations = append(revocations, s.report(counterfoil.Revocation{
			Kind: revoked.Subject, ID: sub.ID, StaleBelow: sub.Epoch,
		}, s.now(), retain))
	}
	return s.resolved(row), revocations, true, nil
}

func (s sessions) End(ctx context.Context, r counterfoil.EndRequest) (counterfoil.Ended, error) {
	if err := ctx.Err(); err != nil {
		return counterfoil.Ended{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	row, ok := s.Store.sessions[r.ID]
	if !ok || r.Subject != "" && r.Subject != row.Subject {
		return counterfoil.Ended{}, noSession(r.ID)
	}
	if s.endOf(row) != nil {
		return counterfoil.Ended{Session: s.resolved(row)}, nil
	}
	now := s.now()
	r.End.At = now
	ended := counterfoil.Ended{Changed: true}
	for _, one := range s.family(row) {
		if s.endOf(one) != nil {
			continue
		}
		one.End = cloneEnd(&r.End)
		one.version++
		ended.Revocations = append(ended.Revocations, s.report(counterfoil.Revocation{
			Kind: revoked.Session, ID: one.ID,
		}, now, r.Retain))
	}
	ended.Session = s.resolved(row)
	return ended, nil
}

// family returns the session and all that were derived from it, parents first.
func (s *Store) family(root *session) []*session {
	all := []*session{root}
	seen := map[*session]bool{root: true}
	for i := 0; i < len(all); i++ {
		for _, child := range s.children[all[i].ID] {
			if !seen[child] {
				seen[child] = true
				all = append(all, child)
			}
		}
	}
	return all
}

func (s sessions) Touch(ctx context.Context, touches []counterfoil.Touch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range touches {
		at := moment(t.At)
		row, ok := s.Store.sessions[t.ID]
		if !ok || s.endOf(row) != nil || !row.LastActiveAt.Before(at) {
			continue
		}
		row.LastActiveAt = at
		row.version++
	}
	return nil
}

func (s sessions) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); now.Before(before) {
		before = now // what is active now stays, whatever the caller says
	}
	n := 0
	s.order = slices.DeleteFunc(s.order, func(row *session) bool {
		over := row.IdleExpiresAt()
		if end := s.endOf(row); end != nil {
			over = end.At
		}
		if n >= limit || !over.Before(before) {
			return false
		}
		n++
		delete(s.Store.sessions, row.ID)
		if siblings := s.children[row.ParentID]; siblings != nil {
			delete(siblings, row.ID)
			if len(siblings) == 0 {
				delete(s.children, row.ParentID)
			}
		}
		return true
	})
	return n, nil
}

func (s sessions) List(ctx context.Context, q counterfoil.ListQuery) ([]counterfoil.Session, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if err := checkLimit(q.Limit); err != nil {
		return nil, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := s.order
	if q.After != "" {
		last, err := decodeCursor(q.After)
		if err != nil {
			return nil, "", err
		}
		i, found := slices.BinarySearchFunc(rest, last, newestFirst)
		if found {
			i++
		}
		rest = rest[i:]
	}
	var page []counterfoil.Session
	for _, row := range rest {
		if q.Subject != "" && q.Subject != row.Subject || q.ClientID != "" && q.ClientID != row.ClientID {
			continue
		}
		one := s.resolved(row)
		if !q.ActiveAt.IsZero() && one.Status(q.ActiveAt) != counterfoil.StatusActive {
			continue
		}
		if len(page) == q.Limit {
			return page, encodeCursor(page[len(page)-1]), nil
		}
		page = append(page, one)
	}
	return page, "", nil
}

func newestFirst(a, b *session) int {
	return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
}

func encodeCursor(last counterfoil.Session) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %s", last.CreatedAt.UnixMicro(), last.ID))
}

func decodeCursor(text string) (*session, error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, counterfoil.ErrInvalidCursor
	}
	micros, id, ok := strings.Cut(string(raw), " ")
	at, err := strconv.ParseInt(micros, 10, 64)
	if err != nil || !ok {
		return nil, counterfoil.ErrInvalidCursor
	}
	return &session{Session: counterfoil.Session{ID: id, CreatedAt: time.UnixMicro(at)}}, nil
}

func checkLimit(limit int) error {
	if limit < 1 || limit > 1000 {
		return &counterfoil.FieldError{Field: "limit", Message: "must be 1 … 1000"}
	}
	return nil
}

func noSession(id string) error {
	return fmt.Errorf("session %q: %w", id, counterfoil.ErrNotFound)
}
