package main

import (
	"context"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
)

const (
	keySoon   = 14 * day // an API key that expires is to be replaced
	keyUnused = 90 * day // an API key that nobody needs is to be revoked
)

func checkAPIKeys(ctx context.Context, p *patient) []finding {
	if !p.opened {
		return nil
	}
	keys, err := p.database.store.Catalog().APIKeys(ctx)
	if err != nil {
		return []finding{fail("list", "they cannot be read: "+err.Error(), "see the check of the database above")}
	}
	return judgeAPIKeys(keys, p.now())
}

func judgeAPIKeys(keys []counterfoil.APIKey, now time.Time) (found []finding) {
	live := 0
	for _, k := range keys {
		name := shortened(k.Name)
		replace := fmt.Sprintf("counterfoil api-key create --name %q, give it to who uses %s, then: counterfoil api-key revoke %s", k.Name, k.ID, k.ID)
		revoke := "counterfoil api-key revoke " + k.ID
		used := now.Sub(k.LastUsedAt)
		switch {
		case !k.RevokedAt.IsZero():
			continue
		case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt) && used < day:
			found = append(found, fail(name, fmt.Sprintf("expired %s ago, and was in use until then: whoever has it is refused", roughly(now.Sub(k.ExpiresAt))), replace))
			continue
		case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
			continue // nobody misses it
		case !k.ExpiresAt.IsZero() && k.ExpiresAt.Sub(now) < keySoon:
			found = append(found, warn(name, fmt.Sprintf("expires in %s", roughly(k.ExpiresAt.Sub(now))), replace))
		case k.LastUsedAt.IsZero() && now.Sub(k.CreatedAt) > keyUnused:
			found = append(found, warn(name, fmt.Sprintf("was made %s ago and never used", roughly(now.Sub(k.CreatedAt))), revoke))
		case !k.LastUsedAt.IsZero() && used > keyUnused:
			found = append(found, warn(name, fmt.Sprintf("was last used %s ago", roughly(used)), revoke))
		}
		live++
	}
	if len(found) == 0 {
		switch live {
		case 0:
			found = append(found, ok("list", "there are none: no backend, and no verifier elsewhere, can ask this authority"))
		default:
			found = append(found, ok("list", "%s, none unused for long, none about to expire", plural(live, "good key")))
		}
	}
	return found
}
