package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/memstore"
)

// operator is an authority over an existing database, for commands that work
// beside a running server.
type operator struct {
	*counterfoil.Authority
	database *database
}

// openOperator opens the databases that --database and --sessions name. The authority has
// signing keys of its own, in memory: an operator's command neither needs the
// seal nor can touch the server's keys, and mints nothing.
func openOperator(ctx context.Context, value storesValue, clientID string) (*operator, error) {
	db, err := value.parse()
	if err != nil {
		return nil, err
	}
	if err := db.open(ctx); err != nil {
		return nil, errors.Join(err, db.close())
	}
	auth, err := counterfoil.New(ctx, keyless{db.whole(), memstore.New().Catalog()}, counterfoil.Config{
		Issuer:    "https://operator.invalid",
		Audiences: []string{"operator"},
		ClientID:  clientID,
		Seal:      counterfoil.SealSecrets(make([]byte, 32)), // of keys that are never written
		// The server's own lifetime is not known here. Revocations that are
		// kept for the longest possible one are kept long enough.
		TokenLifetime:     time.Hour,
		LongTokenLifetime: true,
		Logger:            slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, errors.Join(flagError(err), db.whole().Close(), db.close())
	}
	return &operator{auth, db}, nil
}

func (o *operator) close() error { return errors.Join(o.Close(), o.database.close()) }

// with opens an operator for fn and closes it.
func withOperator(ctx context.Context, database storesValue, clientID string, fn func(*operator) error) (err error) {
	o, err := openOperator(ctx, database, clientID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	return fn(o)
}

// keyless is an opened store whose key ring is another one.
type keyless struct {
	counterfoil.Store
	ring counterfoil.Catalog
}

func (keyless) Open(context.Context) error { return nil }

func (k keyless) Feed() counterfoil.FeedLog { return passingLog{k.Store.Feed()} }

// passingLog records nothing of how long its entries are kept: no server asked
// for that.
type passingLog struct{ counterfoil.FeedLog }

func (passingLog) Retain(context.Context, time.Duration) (time.Duration, error) { return 0, nil }

func (k keyless) Catalog() counterfoil.Catalog { return keylessCatalog{k.Store.Catalog(), k.ring} }

type keylessCatalog struct {
	counterfoil.Catalog
	ring counterfoil.Catalog
}

func (k keylessCatalog) Keys(ctx context.Context) (counterfoil.KeyRing, error) {
	return k.ring.Keys(ctx)
}

func (k keylessCatalog) UpdateKeys(ctx context.Context, retain time.Duration, fn func(*counterfoil.KeyRing) error) (counterfoil.KeyRing, []counterfoil.Revocation, error) {
	return k.ring.UpdateKeys(ctx, retain, fn)
}
