package sqlstore

import (
	"context"
	"errors"
	"reflect"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
)

// users is directory.Store. A user's rights are those of the subject with the
// same id, kept once. Locks are taken in the order subject, user.
type users struct{ *Store }

var _ directory.Store = users{}

// Columns of a user p, in the order that readUser takes them, and of its subject u.
const userColumns = `p.id, p.email, p.email_key, p.password, p.created_at, p.updated_at, p.reset_hash, p.reset_expires_at, p.passkeys, p.rev, ` +
	`u.epoch, u.roles, u.scope, u.disabled`

// userRow is a user with what compare and swap compares, beside the epoch:
// every change of rights goes with one of it.
type userRow struct {
	directory.User
	rev int64
}

func readUser(r *row) (p userRow) {
	p.ID, p.Email, p.EmailKey, p.Password = r.text(), r.text(), r.text(), r.text()
	p.CreatedAt, p.UpdatedAt = r.time(), r.time()
	if r.null() {
		r.skip(1)
	} else {
		p.ResetHash = r.hash()
	}
	p.ResetExpiresAt = r.time()
	p.Passkeys = readPasskeys(r)
	p.rev, p.Epoch = r.int(), r.int()
	p.Rights = readRights(r)
	return p
}

// userValues are the columns that Update writes.
func userValues(p *directory.User) ([]any, error) {
	passkeys, err := passkeysOrNull(p.Passkeys)
	return []any{p.ID, p.Email, p.EmailKey, p.Password, p.UpdatedAt.UnixMilli(), hashOrNull(p.ResetHash), millisOrNull(p.ResetExpiresAt), passkeys}, err
}

func (s users) Create(ctx context.Context, p directory.User) error {
	roles, scope, err := rightsValues(&p.Rights)
	if err != nil {
		return failed("create user", err)
	}
	values, err := userValues(&p)
	if err != nil {
		return failed("create user", err)
	}
	err = s.engine.tx(ctx, func(on runner) error {
		_, err := on.exec(ctx, `INSERT INTO {subjects} AS u (id, epoch, roles, scope, disabled) SELECT $1, {floor} + 1, $2, $3, $4 WHERE true
			ON CONFLICT (id) DO UPDATE SET epoch = u.epoch + 1, roles = excluded.roles, scope = excluded.scope, disabled = excluded.disabled`,
			p.ID, roles, scope, s.truth(p.Rights.Disabled))
		if err == nil {
			err = s.noteSubject(ctx, on, p.ID)
		}
		if err != nil {
			return err
		}
		added, err := on.exec(ctx, `INSERT INTO {users} (id, email, email_key, password, updated_at, reset_hash, reset_expires_at, passkeys, created_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (email_key) DO NOTHING`, append(values, p.CreatedAt.UnixMilli())...)
		if err == nil && added != 1 {
			err = directory.ErrEmailTaken
		}
		return err
	})
	if err != nil {
		return failed("create user", err)
	}
	return nil
}

func (s users) User(ctx context.Context, id string) (directory.User, error) {
	return s.where(ctx, `p.id = $1`, id)
}

func (s users) ByEmail(ctx context.Context, emailKey string) (directory.User, error) {
	return s.where(ctx, `p.email_key = $1`, emailKey)
}

func (s users) where(ctx context.Context, condition, value string) (directory.User, error) {
	p, err := s.read(ctx, condition, value)
	if err != nil {
		return directory.User{}, failed("read user", err)
	}
	return p.User, nil
}

func (s users) read(ctx context.Context, condition, value string) (p userRow, err error) {
	var found bool
	err = s.engine.view(ctx, func(on runner) (err error) {
		found, err = one(ctx, on, func(r *row) { p = readUser(r) },
			`SELECT `+userColumns+` FROM {users} p LEFT JOIN {subjects} u ON u.id = p.id WHERE `+condition, value)
		return err
	})
	if err == nil && !found {
		err = counterfoil.ErrNotFound
	}
	return p, err
}

func (s users) Update(ctx context.Context, id string,
	fn func(*directory.User) (*counterfoil.Advance, error)) (directory.User, *counterfoil.Advanced, error) {
	for {
		was, err := s.read(ctx, `p.id = $1`, id)
		if err != nil {
			return directory.User{}, nil, failed("change user", err)
		}
		next := was.User
		next.Passkeys = clonePasskeys(was.Passkeys)
		advance, err := fn(&next)
		if err != nil {
			return directory.User{}, nil, err
		}
		next.ID, next.CreatedAt, next.Epoch = was.ID, was.CreatedAt, was.Epoch
		next.UpdatedAt = fromMillis(next.UpdatedAt.UnixMilli())
		if !next.ResetExpiresAt.IsZero() {
			next.ResetExpiresAt = fromMillis(next.ResetExpiresAt.UnixMilli())
		}
		next.Passkeys = clonePasskeys(next.Passkeys)
		done, err := s.replace(ctx, &was, &next, advance)
		if errors.Is(err, errChanged) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return directory.User{}, nil, failed("change user", err)
		}
		return next, done, nil
	}
}

// replace writes the user, and its rights where they changed, unless either
// changed since it was read.
func (s users) replace(ctx context.Context, was *userRow, next *directory.User, advance *counterfoil.Advance) (done *counterfoil.Advanced, err error) {
	changedRights := !reflect.DeepEqual(was.Rights, next.Rights)
	if advance != nil {
		a := *advance
		a.Subject = next.ID
		if a.Rights == nil && changedRights {
			a.Rights = &next.Rights
		}
		advance = &a
	}
	values, err := userValues(next)
	if err != nil {
		return nil, err
	}
	kept, err := s.judged(ctx, advance)
	if err != nil {
		return nil, err
	}
	err = s.engine.tx(ctx, func(on runner) error {
		done = nil
		if advance != nil || changedRights {
			if err := s.lockSubject(ctx, on, next.ID, was.Epoch); err != nil {
				return err
			}
		}
		changed, err := on.exec(ctx, `UPDATE {users} SET email = $2, email_key = $3, password = $4, updated_at = $5, reset_hash = $6,
			reset_expires_at = $7, passkeys = $8, rev = rev + 1 WHERE id = $1 AND rev = $9`, append(values, was.rev)...)
		switch {
		case duplicate(err):
			return directory.ErrEmailTaken
		case err != nil:
			return err
		case changed != 1:
			return errChanged
		case advance != nil:
			d, err := s.advanceWith(ctx, on, *advance, kept)
			next.Rights, next.Epoch, done = d.Subject.Rights, d.Subject.Epoch, &d
			return err
		case changedRights:
			next.Epoch, err = s.setRights(ctx, on, next.ID, &next.Rights)
			return err
		}
		return nil
	})
	return done, err
}

// lockSubject makes the subject's row if need be and locks it. epoch 0 takes any.
func (s users) lockSubject(ctx context.Context, on runner, id string, epoch int64) error {
	if err := s.makeSubject(ctx, on, id); err != nil {
		return err
	}
	var is int64
	_, err := one(ctx, on, func(r *row) { is = r.int() }, `SELECT u.epoch FROM {subjects} u WHERE u.id = $1{lock}`, id)
	if err == nil && epoch != 0 && is != epoch {
		err = errChanged
	}
	return err
}

// setRights is for a change that no Advance goes with. It returns the new epoch.
func (s users) setRights(ctx context.Context, on runner, id string, g *counterfoil.Rights) (epoch int64, err error) {
	roles, scope, err := rightsValues(g)
	if err != nil {
		return 0, err
	}
	_, err = one(ctx, on, func(r *row) { epoch = r.int() },
		`UPDATE {subjects} SET epoch = epoch + 1, roles = $2, scope = $3, disabled = $4 WHERE id = $1 RETURNING epoch`,
		id, roles, scope, s.truth(g.Disabled))
	if err == nil {
		err = s.noteSubject(ctx, on, id)
	}
	return epoch, err
}

func (s users) Delete(ctx context.Context, id string, a counterfoil.Advance) (done counterfoil.Advanced, err error) {
	a.Subject = id
	err = s.engine.tx(ctx, func(on runner) error {
		if err := s.lockSubject(ctx, on, id, 0); err != nil {
			return err
		}
		deleted, err := on.exec(ctx, `DELETE FROM {users} WHERE id = $1`, id)
		if err != nil {
			return err
		}
		if deleted != 1 {
			return counterfoil.ErrNotFound
		}
		done, err = s.advanceWith(ctx, on, a, Kept{})
		return err
	})
	if err != nil {
		return counterfoil.Advanced{}, failed("delete user", err)
	}
	return done, nil
}

func (s users) List(ctx context.Context, after string, limit int) (list []directory.User, next string, err error) {
	list, next, err = s.list(ctx, after, limit)
	if err != nil {
		return nil, "", failed("list users", err)
	}
	return list, next, nil
}

func (s users) list(ctx context.Context, after string, limit int) (list []directory.User, next string, err error) {
	if err := checkLimit(limit); err != nil {
		return nil, "", err
	}
	var above string
	if after != "" {
		if above, err = readCursor(userCursor, after); err != nil {
			return nil, "", err
		}
	}
	err = s.engine.view(ctx, func(on runner) error {
		list = nil
		return each(ctx, on, func(r *row) error {
			list = append(list, readUser(r).User)
			return nil
		}, `SELECT `+userColumns+` FROM {users} p LEFT JOIN {subjects} u ON u.id = p.id WHERE p.email_key > $1 ORDER BY p.email_key LIMIT $2`,
			above, limit+1)
	})
	if err == nil && len(list) > limit {
		list = list[:limit]
		next = makeCursor(userCursor, list[limit-1].EmailKey)
	}
	return list, next, err
}

// duplicate says that a unique column has the value already.
func duplicate(err error) bool {
	return err != nil && (sqlState(err) == "23505" || sqliteCode(err) == sqliteConstraint && !fenced(err))
}
