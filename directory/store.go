package directory

import (
	"context"
	"errors"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
)

// ErrEmailTaken is returned by [Store.Create] and [Store.Update] when another
// user has the address.
var ErrEmailTaken = errors.New("this e-mail address is taken")

// User is a person who signs in here.
type User struct {
	ID       string // 24 base62 characters, never used again
	Email    string // as given, trimmed; unique by its normalised form
	EmailKey string // the normalised form
	Password string // argon2id, PHC string; empty: no password is set
	Rights   counterfoil.Rights
	// Epoch is the subject's epoch as it stood when this row was read, from
	// the same snapshot; writes ignore it. A store that cannot read both in
	// one leaves zero, and a sign-in then reads the epoch and the user once more.
	Epoch     int64
	CreatedAt time.Time
	UpdatedAt time.Time
	// ResetHash is the hash of the one outstanding password-reset token,
	// good until ResetExpiresAt; zero when there is none.
	ResetHash      opaque.Hash
	ResetExpiresAt time.Time
	// Passkeys are kept in the order in which they were added.
	Passkeys []Passkey
}

// Store keeps the users. Where it shares a database with the sessions, an
// Advance is committed in the same transaction as the change of the user;
// elsewhere the store records it with the change and repeats it until done.
// All methods are atomic, durable when they return nil, and safe for
// concurrent use. Missing rows are [counterfoil.ErrNotFound].
type Store interface {
	// Create adds a user, and the subject's rights with it.
	Create(ctx context.Context, u User) error
	User(ctx context.Context, id string) (User, error)
	ByEmail(ctx context.Context, emailKey string) (User, error)
	// Update changes one user by compare and swap; fn may be called again.
	// The Advance that fn returns (nil: none) is carried out in the same
	// transaction. fn's error ends the update and is returned as it is.
	Update(ctx context.Context, id string, fn func(*User) (*counterfoil.Advance, error)) (User, *counterfoil.Advanced, error)
	// Delete removes the user and carries out the Advance in the same transaction.
	Delete(ctx context.Context, id string, a counterfoil.Advance) (counterfoil.Advanced, error)
	// List lists users by e-mail address, limit 1 … 1000; after is the next of the page before.
	List(ctx context.Context, after string, limit int) (users []User, next string, err error)
	// Throttle reads the counters of the keys (zero ones where there are
	// none), lets fn change them and writes back those that it changed, all
	// atomically, so that parallel calls on all nodes count one after the
	// other. fn may be called again with what was read anew; its error ends
	// the call, nothing is written, and it is returned as it is. Keys come in
	// any order and without duplicates: a store that locks rows sorts them.
	// Counters whose ExpiresAt is past read as zero and are deleted in time;
	// times are kept to the millisecond at least.
	Throttle(ctx context.Context, keys []string, fn func([]Counter) error) error
	// AddCeremony keeps a ceremony until it is taken. What is past its
	// ExpiresAt is deleted in time.
	AddCeremony(ctx context.Context, c Ceremony) error
	// TakeCeremony removes the ceremony with the challenge and returns it: of
	// parallel calls, on all nodes, one gets it. Missing are also those whose
	// ExpiresAt is not in the future.
	TakeCeremony(ctx context.Context, challenge string) (Ceremony, error)
}

// Counter counts failures under one throttle key, or marks a known network.
type Counter struct {
	Key       string    // at most 40 ASCII characters
	Failures  int       // at the last change
	NotBefore time.Time // no attempt before this
	ExpiresAt time.Time // when the last failure is forgotten
}
