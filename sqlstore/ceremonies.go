package sqlstore

import (
	"context"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
)

func (s users) AddCeremony(ctx context.Context, c directory.Ceremony) error {
	err := s.engine.tx(ctx, func(on runner) error {
		_, err := on.exec(ctx, `INSERT INTO {ceremonies} (challenge, kind, browser, user_id, email, sid, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			c.Challenge, c.Kind, c.Browser[:], textOrNull(c.UserID), textOrNull(c.Email), textOrNull(c.SessionID), c.ExpiresAt.UnixMilli())
		if duplicate(err) {
			err = counterfoil.ErrConflict
		}
		return err
	})
	if err != nil {
		return failed("begin ceremony", err)
	}
	return nil
}

func (s users) TakeCeremony(ctx context.Context, challenge string) (c directory.Ceremony, err error) {
	var found bool
	err = s.engine.tx(ctx, func(on runner) (err error) {
		found, err = one(ctx, on, func(r *row) {
			c = directory.Ceremony{
				Challenge: r.text(), Kind: r.text(), Browser: r.hash(),
				UserID: r.text(), Email: r.text(), SessionID: r.text(), ExpiresAt: r.time(),
			}
		}, `DELETE FROM {ceremonies} WHERE challenge = $1 RETURNING challenge, kind, browser, user_id, email, sid, expires_at`, challenge)
		if err != nil || !found {
			return err
		}
		now, err := s.instant(ctx, on)
		found = now.Before(c.ExpiresAt)
		return err
	})
	if err == nil && !found {
		err = counterfoil.ErrNotFound
	}
	if err != nil {
		return directory.Ceremony{}, failed("end ceremony", err)
	}
	return c, nil
}
