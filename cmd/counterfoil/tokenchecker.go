package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/revoked"
	"github.com/counterfoil/counterfoil/verify"
)

// tokenSource says where the keys for a token are to be had.
type tokenSource struct {
	issuer      string
	tokenIssuer string // what the token says, when nobody said what it must be
	audience    string
	authority   string
	database    *storesValue
	apiKey      string
}

// tokenChecker is a verifier with what it stands on.
type tokenChecker struct {
	check func(ctx context.Context, token string, rules ...verify.Rule) (*verify.Claims, error)
	asks  bool   // it can ask whether the session goes on
	with  string // what it checks with, in words
	close func() error
}

// open returns nil without error when nothing was named to check with.
func (s *tokenSource) open(ctx context.Context) (*tokenChecker, error) {
	switch {
	case s.database != nil:
		return s.openDatabase(ctx)
	case s.issuer == "" && s.authority == "":
		return nil, nil
	case s.issuer == "" && s.tokenIssuer == "":
		return nil, usagef("--issuer is missing, and the token names none")
	}
	return s.openRemote(ctx)
}

func (s *tokenSource) config() verify.Config {
	issuer := s.issuer
	if issuer == "" {
		issuer = s.tokenIssuer
	}
	return verify.Config{
		Issuer: issuer, Audience: s.audience, AcceptAnyAudience: s.audience == "",
		Logger: slog.New(slog.DiscardHandler),
	}
}

func (s *tokenSource) openRemote(ctx context.Context) (*tokenChecker, error) {
	cfg := s.config()
	cfg.Authority, cfg.APIKey = s.authority, s.apiKey
	// Nobody waits longer for keys of an authority that does not answer.
	starting, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	v, err := verify.New(starting, cfg)
	if err != nil {
		return nil, configError(err)
	}
	at := s.authority
	if at == "" {
		at = cfg.Issuer
	}
	return &tokenChecker{check: v.Check, asks: s.apiKey != "", with: "the authority at " + at, close: v.Close}, nil
}

// configError names the flag in place of the library's field.
func configError(err error) error {
	config, ok := errors.AsType[*verify.ConfigError](err)
	if !ok {
		return err
	}
	flags := map[string]string{"Issuer": "--issuer", "Audience": "--audience", "Authority": "--authority", "APIKey": "COUNTERFOIL_API_KEY"}
	if flag := flags[config.Field]; flag != "" {
		return fmt.Errorf("%s: %s", flag, config.Problem)
	}
	return err
}

func (s *tokenSource) openDatabase(ctx context.Context) (*tokenChecker, error) {
	o, err := openOperator(ctx, *s.database, "")
	if err != nil {
		return nil, err
	}
	c, err := s.localChecker(ctx, o)
	if err != nil {
		return nil, errors.Join(err, o.close())
	}
	return c, nil
}

// localChecker verifies with the public keys and the revocations of the
// database. The seal is not needed: it covers the private halves.
func (s *tokenSource) localChecker(ctx context.Context, o *operator) (*tokenChecker, error) {
	ring, err := o.database.store.Catalog().Keys(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := publicKeys(&ring)
	if err != nil {
		return nil, err
	}
	table := revoked.NewTable(time.Now)
	for after := int64(0); ; {
		page, err := o.database.store.Feed().Read(ctx, after, 1000)
		if err != nil {
			return nil, err
		}
		if len(page) == 0 {
			break
		}
		table.Apply(page...)
		after = page[len(page)-1].Position
	}
	v, err := verify.NewLocal(s.config(), verify.Local{
		Key:         func(kid string) (*jws.PublicKey, bool) { k, ok := keys[kid]; return k, ok },
		Revocations: table,
		Live:        o.goesOn,
	})
	if err != nil {
		return nil, configError(err)
	}
	return &tokenChecker{check: v.Check, asks: true, with: "the keys in " + o.database.String(), close: o.close}, nil
}

func publicKeys(ring *counterfoil.KeyRing) (map[string]*jws.PublicKey, error) {
	keys := make(map[string]*jws.PublicKey)
	for _, k := range ring.Keys {
		if k.State == counterfoil.KeyRevoked || k.State == counterfoil.KeyRetiring && !time.Now().Before(k.Until) {
			continue
		}
		public, err := x509.ParsePKIXPublicKey(k.Public)
		if err != nil {
			return nil, fmt.Errorf("signing key %s: %w", k.ID, err)
		}
		if keys[k.ID], err = jws.NewPublicKey(k.ID, jws.Alg(k.Algorithm), public); err != nil {
			return nil, fmt.Errorf("signing key %s: %w", k.ID, err)
		}
	}
	return keys, nil
}

// goesOn is the live check over the database.
func (o *operator) goesOn(ctx context.Context, c *verify.Claims) error {
	s, err := o.Session(ctx, c.SessionID)
	switch {
	case errors.Is(err, counterfoil.ErrNotFound):
		return verify.ErrTokenRevoked
	case err != nil:
		return err
	case s.Subject != c.Subject || s.ClientID != c.ClientID || s.Status(o.Now()) != counterfoil.StatusActive:
		return verify.ErrTokenRevoked
	}
	epoch, err := o.Epoch(ctx, c.Subject)
	if err != nil {
		return err
	}
	if c.Epoch < epoch {
		return verify.ErrTokenStale
	}
	return nil
}
