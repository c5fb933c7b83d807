package directory

import (
	"context"
	"slices"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
)

// EmailChanged is the reason of sessions that ended because the user's
// address became another.
const EmailChanged counterfoil.Reason = "email_changed"

// NewUser is a user that an operator or a backend adds.
type NewUser struct {
	Email string
	// Password may be empty: the user sets one with a password-reset token.
	Password string
	Rights   counterfoil.Rights
}

// Create adds a user. Errors: [*counterfoil.FieldError],
// [counterfoil.ErrConflict] when the address is taken, [verify.ErrUnavailable].
func (d *Directory) Create(ctx context.Context, n NewUser) (User, error) {
	email, key, err := NormalEmail(n.Email)
	if err != nil {
		return User{}, err
	}
	if err := n.Rights.Validate(); err != nil {
		return User{}, err
	}
	u := User{ID: opaque.NewID(), Email: email, EmailKey: key, Rights: n.Rights}
	if n.Password != "" {
		normal, err := d.rules.accept(ctx, "password", n.Password, key)
		if err != nil {
			return User{}, err
		}
		if u.Password, err = d.hashNew(ctx, normal); err != nil {
			return User{}, err
		}
	}
	return d.create(ctx, u)
}

func (d *Directory) create(ctx context.Context, u User) (User, error) {
	u.CreatedAt = d.auth.Now()
	u.UpdatedAt = u.CreatedAt
	if err := d.store.Create(ctx, u); err != nil {
		return User{}, storeError("create user", err)
	}
	return shown(u), nil
}

// shown is a user without what nobody outside has to see.
func shown(u User) User {
	u.Password, u.ResetHash = "", opaque.Hash{}
	return u
}

// Get reads a user; the hashes are left out. [counterfoil.ErrNotFound] when
// there is none.
func (d *Directory) Get(ctx context.Context, id string) (User, error) {
	u, err := d.store.User(ctx, id)
	if err != nil {
		return User{}, storeError("read user", err)
	}
	return shown(u), nil
}

// ByEmail reads the user with this address, in any letter case; the hashes
// are left out. [counterfoil.ErrNotFound] when there is none.
func (d *Directory) ByEmail(ctx context.Context, email string) (User, error) {
	_, key, err := NormalEmail(email)
	if err != nil {
		return User{}, err
	}
	u, err := d.store.ByEmail(ctx, key)
	if err != nil {
		return User{}, storeError("read user", err)
	}
	return shown(u), nil
}

// List lists users by e-mail address, 1 to 1000 a page; after is the next of
// the page before. The hashes are left out.
func (d *Directory) List(ctx context.Context, after string, limit int) (users []User, next string, err error) {
	if limit < 1 || limit > 1000 {
		return nil, "", &counterfoil.FieldError{Field: "limit", Message: "must be 1 to 1000"}
	}
	users, next, err = d.store.List(ctx, after, limit)
	if err != nil {
		return nil, "", storeError("list users", err)
	}
	for i := range users {
		users[i] = shown(users[i])
	}
	return users, next, nil
}

// Change is what may be changed of a user. Nil leaves it.
type Change struct {
	Email    *string
	Roles    *[]string
	Scope    *[]string
	Disabled *bool
	// KeepSessions lets the sessions go on when the address changes. A user
	// who is disabled is signed out always.
	KeepSessions bool
	// Actor is who changes: "operator", a backend's API key id.
	Actor string
}

// Update changes a user, and in the same transaction what follows: other
// roles or scopes make the access tokens stale, so that the next call carries
// the new ones; disabling and another address sign the user out everywhere (unless that was done: the sessions keep the reason of their end).
// Another address also makes a reset token void that went to the old one.
// Errors: [*counterfoil.FieldError], [counterfoil.ErrNotFound],
// [counterfoil.ErrConflict] when the address is taken, [verify.ErrUnavailable].
func (d *Directory) Update(ctx context.Context, id string, change Change) (User, error) {
	var email, key string
	if change.Email != nil {
		var err error
		if email, key, err = NormalEmail(*change.Email); err != nil {
			return User{}, err
		}
	}
	u, _, err := d.update(ctx, id, func(u *User) (*counterfoil.Advance, error) {
		before := *u
		if change.Email != nil {
			u.Email, u.EmailKey = email, key
		}
		if change.Roles != nil {
			u.Rights.Roles = slices.Clone(*change.Roles)
		}
		if change.Scope != nil {
			u.Rights.Scope = slices.Clone(*change.Scope)
		}
		if change.Disabled != nil {
			u.Rights.Disabled = *change.Disabled
		}
		if err := u.Rights.Validate(); err != nil {
			return nil, err
		}
		if u.EmailKey != before.EmailKey {
			setPassword(u, u.Password)
		}
		return d.follows(&before, u, change), nil
	})
	if err != nil {
		return User{}, err
	}
	return shown(u), nil
}

// follows is the Advance that a change of the user brings about, or nil.
func (d *Directory) follows(before, after *User, change Change) *counterfoil.Advance {
	a := d.auth.NewAdvance(after.ID)
	switch {
	case after.Rights.Disabled && !before.Rights.Disabled:
		a.SignOut = true
		a.End = counterfoil.End{Reason: counterfoil.Disabled, Actor: change.Actor}
	case after.EmailKey != before.EmailKey && !change.KeepSessions && !before.Rights.Disabled:
		a.SignOut = true
		a.End = counterfoil.End{Reason: EmailChanged, Actor: change.Actor}
	case sameRights(before.Rights, after.Rights):
		return nil
	}
	rights := after.Rights
	a.Rights = &rights
	return &a
}

func sameRights(a, b counterfoil.Rights) bool {
	return a.Disabled == b.Disabled && slices.Equal(a.Roles, b.Roles) && slices.Equal(a.Scope, b.Scope)
}

// Delete removes a user and signs them out everywhere, in one transaction.
// The id is never given again. [counterfoil.ErrNotFound] when there is none.
func (d *Directory) Delete(ctx context.Context, id, actor string) error {
	a := d.auth.NewAdvance(id)
	a.SignOut = true
	a.End = counterfoil.End{Reason: counterfoil.Deleted, Actor: actor}
	a.Rights = &counterfoil.Rights{Disabled: true}
	done, err := d.store.Delete(ctx, id, a)
	if err != nil {
		return storeError("delete user", err)
	}
	d.auth.Apply(done.Revocation)
	return nil
}

// update changes a user and tells this process's verifiers what followed
// before it returns.
func (d *Directory) update(ctx context.Context, id string, fn func(*User) (*counterfoil.Advance, error)) (User, *counterfoil.Advanced, error) {
	u, advanced, err := d.store.Update(ctx, id, func(u *User) (*counterfoil.Advance, error) {
		a, err := fn(u)
		u.UpdatedAt = d.auth.Now()
		return a, err
	})
	if err != nil {
		return User{}, nil, storeError("update user", err)
	}
	if advanced != nil {
		d.auth.Apply(advanced.Revocation)
	}
	return u, advanced, nil
}
