package sqlstore

import (
	"slices"
	"time"

	"github.com/counterfoil/counterfoil/directory"
)

// passkey is a passkey as its JSON keeps it. Times are Unix milliseconds.
type passkey struct {
	ID         string   `json:"id"`
	Key        []byte   `json:"key"`
	Name       string   `json:"name"`
	Transports []string `json:"transports,omitempty"`
	Count      uint32   `json:"count,omitempty"`
	Eligible   bool     `json:"backup_eligible,omitempty"`
	BackedUp   bool     `json:"backed_up,omitempty"`
	CreatedAt  int64    `json:"created_at"`
	LastUsedAt int64    `json:"last_used_at,omitempty"`
}

func passkeysOrNull(list []directory.Passkey) (any, error) {
	if len(list) == 0 {
		return nil, nil
	}
	kept := make([]passkey, 0, len(list))
	for _, p := range list {
		k := passkey{
			ID: p.ID, Key: p.PublicKey, Name: p.Name, Transports: p.Transports, Count: p.SignCount,
			Eligible: p.BackupEligible, BackedUp: p.BackedUp, CreatedAt: p.CreatedAt.UnixMilli(),
		}
		if !p.LastUsedAt.IsZero() {
			k.LastUsedAt = p.LastUsedAt.UnixMilli()
		}
		kept = append(kept, k)
	}
	return encode(kept)
}

func readPasskeys(r *row) (list []directory.Passkey) {
	var kept []passkey
	r.json(&kept)
	for _, k := range kept {
		p := directory.Passkey{
			ID: k.ID, PublicKey: k.Key, Name: k.Name, Transports: k.Transports, SignCount: k.Count,
			BackupEligible: k.Eligible, BackedUp: k.BackedUp, CreatedAt: fromMillis(k.CreatedAt),
		}
		if k.LastUsedAt != 0 {
			p.LastUsedAt = fromMillis(k.LastUsedAt)
		}
		list = append(list, p)
	}
	return list
}

// clonePasskeys copies passkeys as they will be read again.
func clonePasskeys(list []directory.Passkey) []directory.Passkey {
	list = slices.Clone(list)
	for i := range list {
		p := &list[i]
		p.PublicKey, p.Transports = slices.Clone(p.PublicKey), slices.Clone(p.Transports)
		for _, t := range []*time.Time{&p.CreatedAt, &p.LastUsedAt} {
			if !t.IsZero() {
				*t = fromMillis(t.UnixMilli())
			}
		}
	}
	return list
}
