package redisstore

import (
	"context"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
)

// users is SQL's, and tells Redis what changed.
type users struct {
	directory.Store
	s *Store
}

func (u users) Create(ctx context.Context, p directory.User) error {
	if err := u.Store.Create(ctx, p); err != nil {
		return err
	}
	return u.tell(ctx, p.ID)
}

func (u users) Update(ctx context.Context, id string,
	fn func(*directory.User) (*counterfoil.Advance, error)) (directory.User, *counterfoil.Advanced, error) {
	var before int64
	user, done, err := u.Store.Update(ctx, id, func(p *directory.User) (*counterfoil.Advance, error) {
		before = p.Epoch
		a, err := fn(p)
		if err == nil && a != nil {
			err = checkEnd(&a.End)
		}
		return a, err
	})
	if err != nil || user.Epoch == before {
		return user, done, err
	}
	err = u.tell(ctx, id)
	if err == nil && done != nil {
		err = u.s.fillKept(ctx, done)
	}
	if err != nil {
		return directory.User{}, nil, err
	}
	return user, done, nil
}

func (u users) Delete(ctx context.Context, id string, a counterfoil.Advance) (counterfoil.Advanced, error) {
	done, err := u.Store.Delete(ctx, id, a)
	if err == nil {
		err = u.tell(ctx, id)
	}
	if err != nil {
		return counterfoil.Advanced{}, err
	}
	return done, nil
}

func (u users) tell(ctx context.Context, id string) error {
	facts, err := u.s.journal.UntoldAbout(ctx, id)
	if err == nil {
		err = u.s.tell(ctx, facts)
	}
	if err != nil {
		return failed("change user", notTold(err))
	}
	return nil
}
