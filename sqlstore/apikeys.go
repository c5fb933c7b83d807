package sqlstore

import (
	"context"
	"errors"
	"time"

	"github.com/counterfoil/counterfoil"
)

const apiKeyColumns = `id, name, client_id, scopes, created_at, expires_at, last_used_at, revoked_at, secret_hash, rev`

func readAPIKey(r *row) (k counterfoil.APIKey, rev int64) {
	k.ID, k.Name, k.ClientID = r.text(), r.text(), r.text()
	r.json(&k.Scopes)
	k.CreatedAt, k.ExpiresAt, k.LastUsedAt, k.RevokedAt = r.time(), r.time(), r.time(), r.time()
	k.SecretHash = r.hash()
	return k, r.int()
}

// apiKeyValues are the columns that UpdateAPIKey writes.
func apiKeyValues(k *counterfoil.APIKey) ([]any, error) {
	scopes, err := listOrNull(k.Scopes)
	return []any{k.ID, k.Name, k.ClientID, scopes, millisOrNull(k.ExpiresAt), millisOrNull(k.LastUsedAt),
		millisOrNull(k.RevokedAt), k.SecretHash[:]}, err
}

func (c catalog) CreateAPIKey(ctx context.Context, k counterfoil.APIKey) error {
	values, err := apiKeyValues(&k)
	if err == nil {
		err = c.engine.once(ctx, func(on runner) error {
			_, err := on.exec(ctx, `INSERT INTO {api_keys} (id, name, client_id, scopes, expires_at, last_used_at, revoked_at, secret_hash, created_at)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, append(values, k.CreatedAt.UnixMilli())...)
			return err
		})
	}
	if err != nil {
		return failed("create API key", err)
	}
	return nil
}

func (c catalog) APIKey(ctx context.Context, id string) (counterfoil.APIKey, error) {
	k, _, err := c.apiKey(ctx, id)
	if err != nil {
		return counterfoil.APIKey{}, failed("read API key", err)
	}
	return k, nil
}

func (c catalog) apiKey(ctx context.Context, id string) (k counterfoil.APIKey, rev int64, err error) {
	var found bool
	err = c.engine.view(ctx, func(on runner) (err error) {
		found, err = one(ctx, on, func(r *row) { k, rev = readAPIKey(r) }, `SELECT `+apiKeyColumns+` FROM {api_keys} WHERE id = $1`, id)
		return err
	})
	if err == nil && !found {
		err = counterfoil.ErrNotFound
	}
	return k, rev, err
}

func (c catalog) UpdateAPIKey(ctx context.Context, id string, fn func(*counterfoil.APIKey) error) (counterfoil.APIKey, error) {
	for {
		was, rev, err := c.apiKey(ctx, id)
		if err != nil {
			return counterfoil.APIKey{}, failed("change API key", err)
		}
		next := was
		if err := fn(&next); err != nil {
			return counterfoil.APIKey{}, err
		}
		next.ID, next.CreatedAt = was.ID, was.CreatedAt
		for _, t := range []*time.Time{&next.ExpiresAt, &next.LastUsedAt, &next.RevokedAt} {
			if !t.IsZero() {
				*t = fromMillis(t.UnixMilli())
			}
		}
		err = c.replaceAPIKey(ctx, &next, rev)
		if errors.Is(err, errChanged) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return counterfoil.APIKey{}, failed("change API key", err)
		}
		return next, nil
	}
}

func (c catalog) replaceAPIKey(ctx context.Context, next *counterfoil.APIKey, rev int64) error {
	values, err := apiKeyValues(next)
	if err != nil {
		return err
	}
	return c.engine.once(ctx, func(on runner) error {
		changed, err := on.exec(ctx, `UPDATE {api_keys} SET name = $2, client_id = $3, scopes = $4, expires_at = $5, last_used_at = $6,
			revoked_at = $7, secret_hash = $8, rev = rev + 1 WHERE id = $1 AND rev = $9`, append(values, rev)...)
		if err == nil && changed != 1 {
			err = errChanged
		}
		return err
	})
}

func (c catalog) APIKeys(ctx context.Context) (list []counterfoil.APIKey, err error) {
	err = c.engine.view(ctx, func(on runner) error {
		list = nil
		return each(ctx, on, func(r *row) error {
			k, _ := readAPIKey(r)
			list = append(list, k)
			return nil
		}, `SELECT `+apiKeyColumns+` FROM {api_keys} ORDER BY created_at DESC, id DESC`)
	})
	if err != nil {
		return nil, failed("list API keys", err)
	}
	return list, nil
}
