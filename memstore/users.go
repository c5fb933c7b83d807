package memstore

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
)

// user is a row; version changes with each write of it.
type user struct {
	directory.User
	version int64
}

// users is the Store as a directory.Store.
type users struct{ *Store }

func (u users) Create(ctx context.Context, given directory.User) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if given.ID == "" || given.EmailKey == "" {
		return errors.New("create user: ID and EmailKey must be set")
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, taken := u.Store.users[given.ID]; taken {
		return fmt.Errorf("user %q: %w", given.ID, counterfoil.ErrConflict)
	}
	if _, taken := u.emails[given.EmailKey]; taken {
		return directory.ErrEmailTaken
	}
	row := &user{User: cloneUser(given)}
	u.Store.users[row.ID], u.emails[row.EmailKey] = row, row
	sub := u.peek(row.ID)
	sub.Rights = cloneRights(row.Rights)
	u.subjects[row.ID] = sub
	return nil
}

func (u users) User(ctx context.Context, id string) (directory.User, error) {
	if err := ctx.Err(); err != nil {
		return directory.User{}, err
	}
	found, _, err := u.readUser(id)
	return found, err
}

func (s *Store) readUser(id string) (directory.User, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row, ok := s.users[id]
	if !ok {
		return directory.User{}, 0, noUser(id)
	}
	return s.userOf(row), row.version, nil
}

// userOf copies a row, with the subject's epoch.
func (s *Store) userOf(row *user) directory.User {
	u := cloneUser(row.User)
	u.Epoch = s.peek(row.ID).Epoch
	return u
}

func (u users) ByEmail(ctx context.Context, emailKey string) (directory.User, error) {
	if err := ctx.Err(); err != nil {
		return directory.User{}, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	row, ok := u.emails[emailKey]
	if !ok {
		return directory.User{}, fmt.Errorf("user by e-mail: %w", counterfoil.ErrNotFound)
	}
	return u.userOf(row), nil
}

func (u users) Update(ctx context.Context, id string, fn func(*directory.User) (*counterfoil.Advance, error)) (directory.User, *counterfoil.Advanced, error) {
	for {
		if err := ctx.Err(); err != nil {
			return directory.User{}, nil, err
		}
		seen, version, err := u.readUser(id)
		if err != nil {
			return directory.User{}, nil, err
		}
		changed := cloneUser(seen)
		advance, err := fn(&changed)
		if err != nil {
			return directory.User{}, nil, err
		}
		if advance != nil && advance.Subject == "" {
			return directory.User{}, nil, errNoSubject
		}
		changed = cloneUser(changed)
		changed.ID, changed.Epoch = id, seen.Epoch
		if advanced, swapped, err := u.swapUser(changed, version, advance); swapped || err != nil {
			if err != nil {
				return directory.User{}, nil, err
			}
			changed = cloneUser(changed)
			if advanced != nil {
				changed.Epoch = advanced.Subject.Epoch
			}
			return changed, advanced, nil
		}
	}
}

// swapUser writes a changed user with its advance, unless the row was written
// after version.
func (s *Store) swapUser(changed directory.User, version int64, advance *counterfoil.Advance) (advanced *counterfoil.Advanced, swapped bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row, ok := s.users[changed.ID]
	if !ok {
		return nil, false, noUser(changed.ID)
	}
	if row.version != version {
		return nil, false, nil
	}
	if holder, taken := s.emails[changed.EmailKey]; taken && holder != row {
		return nil, false, directory.ErrEmailTaken
	}
	delete(s.emails, row.EmailKey)
	row.User = changed
	row.version++
	s.emails[row.EmailKey] = row
	if advance != nil {
		a := s.advance(*advance)
		advanced = &a
	}
	return advanced, true, nil
}

func (u users) Delete(ctx context.Context, id string, a counterfoil.Advance) (counterfoil.Advanced, error) {
	if err := ctx.Err(); err != nil {
		return counterfoil.Advanced{}, err
	}
	if a.Subject == "" {
		return counterfoil.Advanced{}, errNoSubject
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	row, ok := u.Store.users[id]
	if !ok {
		return counterfoil.Advanced{}, noUser(id)
	}
	delete(u.Store.users, id)
	delete(u.emails, row.EmailKey)
	return u.advance(a), nil
}

func (u users) List(ctx context.Context, after string, limit int) ([]directory.User, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if err := checkLimit(limit); err != nil {
		return nil, "", err
	}
	last, err := base64.RawURLEncoding.DecodeString(after)
	rest, ok := strings.CutPrefix(string(last), cursorMark)
	if after != "" && (err != nil || !ok) {
		return nil, "", counterfoil.ErrInvalidCursor
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []*user
	for key, row := range u.emails {
		if after == "" || key > rest {
			all = append(all, row)
		}
	}
	slices.SortFunc(all, func(a, b *user) int { return cmp.Compare(a.EmailKey, b.EmailKey) })
	page := make([]directory.User, 0, min(limit, len(all)))
	for _, row := range all[:min(limit, len(all))] {
		page = append(page, u.userOf(row))
	}
	if len(all) <= limit {
		return page, "", nil
	}
	return page, base64.RawURLEncoding.EncodeToString([]byte(cursorMark + page[limit-1].EmailKey)), nil
}

const cursorMark = "e-mail above "

// Throttle holds the store's lock while fn runs: fn must not call the store.
func (u users) Throttle(ctx context.Context, keys []string, fn func([]directory.Counter) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	counters := make([]directory.Counter, len(keys))
	for i, key := range keys {
		if c, ok := u.counters[key]; ok && now.Before(c.ExpiresAt) {
			counters[i] = c
		}
		counters[i].Key = key
	}
	if err := fn(counters); err != nil {
		return err
	}
	for i, key := range keys {
		c := counters[i]
		c.Key, c.NotBefore, c.ExpiresAt = key, moment(c.NotBefore), moment(c.ExpiresAt)
		u.counters[key] = c
	}
	// More leave than came, so what is over does not pile up.
	left := 2*len(keys) + 2
	for key, c := range u.counters {
		if !now.Before(c.ExpiresAt) {
			delete(u.counters, key)
		}
		if left--; left == 0 {
			break
		}
	}
	return nil
}

func (u users) AddCeremony(ctx context.Context, c directory.Ceremony) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	// More leave than came, as with the counters.
	left := 2
	for key, old := range u.ceremonies {
		if !now.Before(old.ExpiresAt) {
			delete(u.ceremonies, key)
		}
		if left--; left == 0 {
			break
		}
	}
	if _, taken := u.ceremonies[c.Challenge]; taken {
		return fmt.Errorf("ceremony: %w", counterfoil.ErrConflict)
	}
	c.ExpiresAt = moment(c.ExpiresAt)
	u.ceremonies[c.Challenge] = c
	return nil
}

func (u users) TakeCeremony(ctx context.Context, challenge string) (directory.Ceremony, error) {
	if err := ctx.Err(); err != nil {
		return directory.Ceremony{}, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	c, ok := u.ceremonies[challenge]
	delete(u.ceremonies, challenge)
	if !ok || !u.now().Before(c.ExpiresAt) {
		return directory.Ceremony{}, fmt.Errorf("ceremony: %w", counterfoil.ErrNotFound)
	}
	return c, nil
}

func cloneUser(u directory.User) directory.User {
	u.Rights = cloneRights(u.Rights)
	u.CreatedAt, u.UpdatedAt = moment(u.CreatedAt), moment(u.UpdatedAt)
	u.ResetExpiresAt = moment(u.ResetExpiresAt)
	u.Passkeys = slices.Clone(u.Passkeys)
	for i := range u.Passkeys {
		p := &u.Passkeys[i]
		p.PublicKey, p.Transports = slices.Clone(p.PublicKey), slices.Clone(p.Transports)
		p.CreatedAt, p.LastUsedAt = moment(p.CreatedAt), moment(p.LastUsedAt)
	}
	return u
}

func noUser(id string) error { return fmt.Errorf("user %q: %w", id, counterfoil.ErrNotFound) }
