package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/memstore"
)

// oldKey is when a signing key is due for rotation: NIST SP 800-57 bounds the
// use of a private signature key to one to three years.
const oldKey = 365 * day

// checkKeys looks at the seal and the ages of the signing keys.
func checkKeys(ctx context.Context, p *patient) []finding {
	if p.ring == nil {
		return nil
	}
	found := p.checkSeal(ctx)
	return append(found, judgeKeys(p.ring, p.flags.algorithm, p.now())...)
}

func (p *patient) checkSeal(ctx context.Context) []finding {
	const check = "seal"
	none := !slices.ContainsFunc(p.ring.Keys, func(k counterfoil.KeyRecord) bool { return len(k.Sealed) > 0 })
	text, where, file := p.sealText, sealVariable, string(p.flags.sealFile)
	switch {
	case file != "" && text != "":
		return []finding{fail(check, "--seal-file and COUNTERFOIL_SEAL are both given, and serve refuses to start", "give one of them")}
	case text == "" && file == "" && !p.database.isSQLite():
		return []finding{fail(check, "no seal is given, and serve refuses to start on PostgreSQL without one", "give --seal-file or COUNTERFOIL_SEAL, the same on each node; "+makeSecret)}
	case text == "":
		if file == "" {
			file = p.database.path + ".seal"
		}
		where = file
		data, err := os.ReadFile(file)
		switch {
		case err != nil && none:
			return []finding{warn(check, fmt.Sprintf("%s is not there, and there are no signing keys yet", file), "counterfoil serve makes it on the first start; back it up then, apart from the database")}
		case err != nil:
			return []finding{fail(check, fmt.Sprintf("%s cannot be read (%v): the signing keys are sealed with it, so serve refuses to start", file, withoutPath(err)), "put it back from its backup, or name it with --seal-file; run the doctor as the user of serve")}
		}
		text = string(data)
	}
	found := sealMode(file)
	err := opensKeys(ctx, p.ring, text)
	switch {
	case errors.Is(err, counterfoil.ErrWrongSeal):
		return append(found, fail(check, where+" does not open the signing keys in the database, so serve refuses to start", "give the seal they were made with; an old secret stays behind the new one, divided by a comma"))
	case err != nil:
		return append(found, fail(check, where+": "+err.Error(), makeSecret))
	case none:
		return append(found, ok(check, "%s can be read; there are no signing keys yet", where))
	}
	return append(found, ok(check, "%s opens every signing key in the database", where))
}

func sealMode(file string) []finding {
	if file == "" || os.PathSeparator != '/' {
		return nil
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	return []finding{fail("seal file", fmt.Sprintf("%s is readable by others (mode %04o), and serve refuses it", file, info.Mode().Perm()), "chmod 600 "+file)}
}

// opensKeys opens each key as serve does, in memory: the real database is not
// touched.
func opensKeys(ctx context.Context, ring *counterfoil.KeyRing, seal string) error {
	auth, err := counterfoil.New(ctx, borrowedRing{memstore.New(), ring}, counterfoil.Config{
		Issuer: "https://doctor.invalid", Audiences: []string{"doctor"}, Algorithm: activeAlgorithm(ring),
		Seal: counterfoil.SealText(seal), Logger: slog.New(slog.DiscardHandler),
	})
	if field, ok := errors.AsType[*counterfoil.FieldError](err); ok && field.Field == "Seal" {
		return errors.New(field.Message)
	}
	if err != nil {
		return err
	}
	return auth.Close()
}

// borrowedRing is a store in memory with the key ring of another one. The
// ring looks empty until it is to be changed: each key is opened then.
type borrowedRing struct {
	counterfoil.Store
	ring *counterfoil.KeyRing
}

func (b borrowedRing) Catalog() counterfoil.Catalog {
	return borrowedCatalog{b.Store.Catalog(), b.ring}
}

type borrowedCatalog struct {
	counterfoil.Catalog
	ring *counterfoil.KeyRing
}

func (b borrowedCatalog) UpdateKeys(_ context.Context, _ time.Duration, fn func(*counterfoil.KeyRing) error) (counterfoil.KeyRing, []counterfoil.Revocation, error) {
	ring := counterfoil.KeyRing{Version: b.ring.Version + 1, Keys: slices.Clone(b.ring.Keys)}
	return ring, nil, fn(&ring)
}

// judgeKeys says how the ring stands.
func judgeKeys(ring *counterfoil.KeyRing, algorithm string, now time.Time) (found []finding) {
	if len(ring.Keys) == 0 {
		return []finding{warn("signing keys", "there are none yet", "counterfoil serve makes them on the first start")}
	}
	var active, next *counterfoil.KeyRecord
	var overdue []string
	for i := range ring.Keys {
		k := &ring.Keys[i]
		switch {
		case k.State == counterfoil.KeyActive:
			active = k
		case k.State == counterfoil.KeyNext:
			next = k
		case k.State == counterfoil.KeyRetiring && now.Sub(k.Until) > 7*day:
			overdue = append(overdue, shortKid(k.ID))
		}
	}
	const restart = "start a counterfoil serve on this database: it makes what is missing"
	switch {
	case active == nil:
		found = append(found, fail("active key", "there is none: nothing can be minted", restart))
	case active.Algorithm != algorithm:
		found = append(found, warn("active key", fmt.Sprintf("it is for %s, and these settings say %s: the next start of a server with them retires it, and a node with the other setting turns it back when it starts", active.Algorithm, algorithm), "give every node the same --algorithm"))
	case now.Sub(active.CreatedAt) > oldKey:
		found = append(found, warn("active key", fmt.Sprintf("%s was made %s ago", shortKid(active.ID), roughly(now.Sub(active.CreatedAt))), "counterfoil keys rotate (nobody notices)"))
	default:
		found = append(found, ok("active key", "%s, %s, made %s ago", shortKid(active.ID), active.Algorithm, roughly(now.Sub(active.CreatedAt))))
	}
	switch {
	case next == nil:
		found = append(found, fail("next key", "there is none: when the active key has to be revoked, verifiers do not know what comes after it", restart))
	case now.Sub(next.CreatedAt) < 5*time.Minute:
		found = append(found, ok("next key", "%s, published %s ago; wait with a rotation until it is 5 min, for verifiers to have it", shortKid(next.ID), roughly(now.Sub(next.CreatedAt))))
	default:
		found = append(found, ok("next key", "%s is published and ready", shortKid(next.ID)))
	}
	if len(overdue) > 0 {
		found = append(found, warn("retiring keys", fmt.Sprintf("%s should have left the published set more than a week ago", strings.Join(overdue, ", ")), "counterfoil keys rotate (it drops what is over)"))
	}
	return found
}

// shortKid names a key in prose; the whole kid is 43 characters.
func shortKid(kid string) string { return kid[:min(8, len(kid))] + "…" }
