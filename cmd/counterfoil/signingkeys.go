package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/counterfoil/counterfoil"
)

func keysCommand() *command {
	return &command{
		name:  "keys",
		short: "Signing keys",
		children: []*command{
			{
				name:  "list",
				short: "List the signing keys of a database",
				long:  "active signs, next is published and signs after it, retiring verifies until its\nlast token is dead, revoked verifies no more.",
				setup: keysList,
			},
			{
				name:  "rotate",
				short: "Let the next key sign, and make a new next",
				long: `Nobody notices: the old key verifies until its last token is dead. Let five minutes
pass between two rotations, for verifiers that do not follow the feed.

It needs the seal of the servers: --seal-file, COUNTERFOIL_SEAL, or FILE.seal beside a
SQLite database. Running servers sign with the new key within a second.`,
				examples: []string{"counterfoil keys rotate", "counterfoil keys rotate --database postgres://app@db/app --seal-file /etc/counterfoil.seal"},
				setup:    keysRotate,
			},
			{
				name:  "revoke",
				args:  "KID|active|next",
				short: "The emergency: every token of a signing key is refused from now on",
				long: `Verifiers are told over the feed; the next key signs, and clients refresh by
themselves, so nobody is signed out. Verifiers that follow no feed hear of it with
the key set, up to five minutes later. It needs the seal, as rotate does.`,
				examples: []string{"counterfoil keys revoke active", "counterfoil keys revoke qPVN3tPJ1dpMlyVcWWmkKCzP1hDUvQkOj8lKqJ1PZBo"},
				setup:    keysRevoke,
			},
		},
	}
}

// keyJSON is a signing key as JSON shows it.
type keyJSON struct {
	ID        string `json:"kid"`
	Algorithm string `json:"alg"`
	State     string `json:"state"`
	CreatedAt *int64 `json:"created_at"`
	Until     *int64 `json:"until,omitempty"`
}

func keysList(a *app, f *flags) func(context.Context, []string) error {
	value := databaseFlag(f)
	asJSON := jsonFlag(f)
	f.configFlag()
	return func(ctx context.Context, args []string) (err error) {
		if err := noArgs(args); err != nil {
			return err
		}
		ring, err := readRing(ctx, string(*value))
		if err != nil {
			return err
		}
		return showKeys(newPrinter(a), ring, bool(*asJSON))
	}
}

func readRing(ctx context.Context, value string) (ring counterfoil.KeyRing, err error) {
	db, err := parseDatabase(value)
	if err != nil {
		return ring, err
	}
	db.aside = true
	defer func() { err = errors.Join(err, db.close()) }()
	if err := db.open(ctx); err != nil {
		return ring, err
	}
	defer func() { err = errors.Join(err, db.store.Close()) }()
	return db.store.Catalog().Keys(ctx)
}

func showKeys(p *printer, ring counterfoil.KeyRing, asJSON bool) error {
	if asJSON {
		list := make([]keyJSON, 0, len(ring.Keys))
		for _, k := range ring.Keys {
			list = append(list, keyJSON{k.ID, k.Algorithm, string(k.State), unix(k.CreatedAt), unix(k.Until)})
		}
		return p.json(map[string]any{"version": ring.Version, "keys": list})
	}
	styles := map[counterfoil.KeyState]style{counterfoil.KeyActive: good, counterfoil.KeyRetiring: warning, counterfoil.KeyRevoked: bad}
	rows := [][]cell{{text("KID"), text("ALG"), text("STATE"), text("CREATED"), text("LEAVES")}}
	for _, k := range ring.Keys {
		leaves := ""
		if !k.Until.IsZero() {
			leaves = p.ago(k.Until)
		}
		rows = append(rows, []cell{text(k.ID), text(k.Algorithm), styled(styles[k.State], string(k.State)), text(p.ago(k.CreatedAt)), text(leaves)})
	}
	p.table(rows)
	return nil
}

func keysRotate(a *app, f *flags) func(context.Context, []string) error {
	value, sealFile, asJSON := keyFlags(f)
	return func(ctx context.Context, args []string) error {
		if err := noArgs(args); err != nil {
			return err
		}
		return withKeys(ctx, a, string(*value), string(*sealFile), bool(*asJSON), func(auth *counterfoil.Authority) error {
			return auth.RotateKeys(ctx)
		})
	}
}

func keysRevoke(a *app, f *flags) func(context.Context, []string) error {
	value, sealFile, asJSON := keyFlags(f)
	return func(ctx context.Context, args []string) error {
		kid, err := oneArg(args, "the key's KID (or active, or next)")
		if err != nil {
			return err
		}
		if state := counterfoil.KeyState(kid); state == counterfoil.KeyActive || state == counterfoil.KeyNext {
			ring, err := readRing(ctx, string(*value))
			if err != nil {
				return err
			}
			for _, k := range ring.Keys {
				if k.State == state {
					kid = k.ID
				}
			}
		}
		return withKeys(ctx, a, string(*value), string(*sealFile), bool(*asJSON), func(auth *counterfoil.Authority) error {
			err := auth.RevokeKey(ctx, kid)
			if errors.Is(err, counterfoil.ErrNotFound) {
				return fmt.Errorf("there is no signing key %q: see counterfoil keys list (the whole KID)", kid)
			}
			return err
		})
	}
}

func keyFlags(f *flags) (value, sealFile *textValue, asJSON *boolValue) {
	value, sealFile = databaseFlag(f), new(textValue)
	f.add(sealFile, "seal-file", "FILE", "secret that seals the signing keys; FILE.seal beside a SQLite database when left out")
	asJSON = jsonFlag(f)
	f.configFlag()
	return value, sealFile, asJSON
}

// withKeys opens an authority that can change the signing keys of a database,
// and shows what they are then.
func withKeys(ctx context.Context, a *app, value, sealFile string, asJSON bool, change func(*counterfoil.Authority) error) (err error) {
	ring, err := readRing(ctx, value) // which opens what serve made, and nothing else
	if err != nil {
		return err
	}
	algorithm := activeAlgorithm(&ring)
	if algorithm == "" {
		return errors.New("there are no signing keys yet: counterfoil serve makes them when it starts")
	}
	db, err := parseDatabase(value)
	if err != nil {
		return err
	}
	db.aside = true
	defer func() { err = errors.Join(err, db.close()) }()
	sealText, _ := a.lookupEnv(sealVariable)
	if sealFile == "" && sealText == "" && db.isSQLite() {
		sealFile = db.path + ".seal"
		if _, err := os.Stat(sealFile); err != nil {
			return &missingSealError{sealFile}
		}
	}
	s, err := chooseSeal(db, sealFile, sealText)
	if err != nil {
		return err
	}
	if err := db.connect(); err != nil {
		return err
	}
	auth, err := counterfoil.New(ctx, unrecordedStore{db.store}, counterfoil.Config{
		Issuer: "https://operator.invalid", Audiences: []string{"operator"}, Seal: s.Seal, Algorithm: algorithm,
		// The servers' own lifetime is not known here: the longest there is.
		TokenLifetime: time.Hour, LongTokenLifetime: true, Logger: slog.New(slog.DiscardHandler),
	})
	if errors.Is(err, counterfoil.ErrWrongSeal) {
		return fmt.Errorf("%s does not open the signing keys in %s: give the seal they were made with; nothing was changed", s.where, db)
	}
	if err != nil {
		return errors.Join(flagError(err), db.store.Close())
	}
	defer func() { err = errors.Join(err, auth.Close()) }()
	if err := change(auth); err != nil {
		return err
	}
	if ring, err = db.store.Catalog().Keys(ctx); err != nil {
		return err
	}
	return showKeys(newPrinter(a), ring, asJSON)
}

// activeAlgorithm is that of the key that signs; empty when there is none.
func activeAlgorithm(ring *counterfoil.KeyRing) string {
	for _, k := range ring.Keys {
		if k.State == counterfoil.KeyActive {
			return k.Algorithm
		}
	}
	return ""
}

// unrecordedStore leaves the servers' retention as it is.
type unrecordedStore struct{ counterfoil.Store }

func (s unrecordedStore) Feed() counterfoil.FeedLog { return passingLog{s.Store.Feed()} }
