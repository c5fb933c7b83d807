package sqlstore

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// catalog is counterfoil.Catalog.
type catalog struct{ *Store }

var _ counterfoil.Catalog = catalog{}

func (c catalog) Keys(ctx context.Context) (counterfoil.KeyRing, error) {
	ring, err := c.keys(ctx)
	if err != nil {
		return counterfoil.KeyRing{}, failed("read signing keys", err)
	}
	return ring, nil
}

func (c catalog) keys(ctx context.Context) (ring counterfoil.KeyRing, err error) {
	err = c.engine.view(ctx, func(on runner) error {
		ring.Keys = nil
		found := false
		// That m is one row PostgreSQL must be told: it would guess thousands,
		// and spend longer on compiling (JIT) than on all else at the start.
		err := each(ctx, on, func(r *row) error {
			found = true
			ring.Version = r.int()
			if r.null() {
				return nil
			}
			k := counterfoil.KeyRecord{ID: r.text(), Algorithm: r.text(), State: counterfoil.KeyState(r.text()), Public: r.bytes()}
			if !r.null() {
				k.Sealed = r.bytes()
			} else {
				r.skip(1)
			}
			k.CreatedAt, k.Until = r.time(), r.time()
			ring.Keys = append(ring.Keys, k)
			return nil
		}, `SELECT m.key_version, k.kid, k.algorithm, k.state, k.public, k.sealed, k.created_at, k.until
			FROM {meta} m LEFT JOIN {keys} k ON true WHERE m.id = 1 ORDER BY k.place`)
		if err == nil && !found {
			err = c.noMeta(ctx, on)
		}
		return err
	})
	return ring, err
}

func (c catalog) UpdateKeys(ctx context.Context, retain time.Duration,
	fn func(*counterfoil.KeyRing) error) (counterfoil.KeyRing, []counterfoil.Revocation, error) {
	for {
		was, err := c.keys(ctx)
		if err != nil {
			return counterfoil.KeyRing{}, nil, failed("change signing keys", err)
		}
		next := counterfoil.KeyRing{Version: was.Version, Keys: slices.Clone(was.Keys)}
		if err := fn(&next); err != nil {
			return counterfoil.KeyRing{}, nil, err
		}
		if next.Version = was.Version; reflect.DeepEqual(was, next) {
			return was, nil, nil
		}
		next.Version++
		revocations, err := c.replaceKeys(ctx, &was, &next, retain)
		if errors.Is(err, errChanged) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return counterfoil.KeyRing{}, nil, failed("change signing keys", err)
		}
		return next, revocations, nil
	}
}

func (c catalog) replaceKeys(ctx context.Context, was, next *counterfoil.KeyRing, retain time.Duration) (revocations []counterfoil.Revocation, err error) {
	revokedBefore := map[string]bool{}
	for _, k := range was.Keys {
		revokedBefore[k.ID] = k.State == counterfoil.KeyRevoked
	}
	err = c.engine.tx(ctx, func(on runner) error {
		revocations = nil
		changed, err := on.exec(ctx, `UPDATE {meta} SET key_version = $2 WHERE key_version = $1`, was.Version, next.Version)
		if err != nil {
			return err
		}
		if changed != 1 {
			return errChanged
		}
		if _, err := on.exec(ctx, `DELETE FROM {keys}`); err != nil {
			return err
		}
		for i := range next.Keys {
			k := &next.Keys[i]
			k.CreatedAt = fromMillis(k.CreatedAt.UnixMilli())
			if !k.Until.IsZero() {
				k.Until = fromMillis(k.Until.UnixMilli())
			}
			var sealed any
			if len(k.Sealed) > 0 {
				sealed = k.Sealed
			}
			_, err := on.exec(ctx, `INSERT INTO {keys} (kid, place, algorithm, state, public, sealed, created_at, until)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
				k.ID, i, k.Algorithm, string(k.State), k.Public, sealed, k.CreatedAt.UnixMilli(), millisOrNull(k.Until))
			if err != nil {
				return err
			}
			if k.State != counterfoil.KeyRevoked || revokedBefore[k.ID] {
				continue
			}
			entry := counterfoil.Revocation{Kind: revoked.Key, ID: k.ID}
			if err := c.report(ctx, on, &entry, retain); err != nil {
				return err
			}
			revocations = append(revocations, entry)
		}
		return nil
	})
	return revocations, err
}
