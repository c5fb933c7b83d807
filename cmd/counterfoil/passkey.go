package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/counterfoil/counterfoil/directory"
)

// relyingParty is what passkeys are bound to: the issuer's host, or the one
// given, with those of the origins that lie below it.
func relyingParty(domain, issuer string, origins []string) directory.RelyingParty {
	p := directory.RelyingParty{ID: domain}
	u, err := url.Parse(issuer)
	if err != nil {
		return p // the authority says what is wrong with it
	}
	if p.ID == "" {
		p.ID = u.Hostname()
	}
	own := u.Scheme + "://" + u.Host
	for _, origin := range append([]string{own}, origins...) {
		if o, err := url.Parse(origin); err == nil && (o.Hostname() == p.ID || strings.HasSuffix(o.Hostname(), "."+p.ID)) {
			p.Origins = append(p.Origins, origin)
		}
	}
	if len(p.Origins) <= 1 && domain == "" {
		return directory.RelyingParty{} // its own defaults, which know addresses
	}
	return p
}

type passkeyJSON struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	BackedUp   bool   `json:"backed_up"`
	CreatedAt  *int64 `json:"created_at"`
	LastUsedAt *int64 `json:"last_used_at"`
}

func userPasskeys(a *app, f *flags) func(context.Context, []string) error {
	database := storesFlags(f)
	asJSON := jsonFlag(f)
	f.configFlag()
	return func(ctx context.Context, args []string) error {
		who, err := oneArg(args, "the user's ID or e-mail address")
		if err != nil {
			return err
		}
		return withUsers(ctx, *database, func(users *directory.Directory) error {
			u, err := findUser(ctx, users, who)
			if err != nil {
				return err
			}
			p := newPrinter(a)
			if *asJSON {
				out := make([]passkeyJSON, 0, len(u.Passkeys))
				for _, k := range u.Passkeys {
					out = append(out, passkeyJSON{k.ID, k.Name, k.BackedUp, unix(k.CreatedAt), unix(k.LastUsedAt)})
				}
				return p.json(map[string]any{"passkeys": out})
			}
			if len(u.Passkeys) == 0 {
				fmt.Fprintf(a.stderr, "%s has no passkeys.\n", printable(u.Email))
				return nil
			}
			rows := [][]cell{{text("ID"), text("NAME"), text("KEPT"), text("LAST USED"), text("ADDED")}}
			for _, k := range u.Passkeys {
				kept, used := "on one device", "not yet"
				if k.BackedUp {
					kept = "synchronised"
				}
				if !k.LastUsedAt.IsZero() {
					used = p.ago(k.LastUsedAt)
				}
				rows = append(rows, []cell{text(k.ID), text(k.Name), text(kept), text(used), text(p.ago(k.CreatedAt))})
			}
			p.table(rows)
			return nil
		})
	}
}

func userRemovePasskey(a *app, f *flags) func(context.Context, []string) error {
	database := storesFlags(f)
	f.configFlag()
	return func(ctx context.Context, args []string) error {
		if len(args) != 2 {
			return usagef("want the user's ID or e-mail address, and the passkey's ID or name")
		}
		return withUsers(ctx, *database, func(users *directory.Directory) error {
			u, err := findUser(ctx, users, args[0])
			if err != nil {
				return err
			}
			key, err := findPasskey(u, args[1])
			if err != nil {
				return err
			}
			if err := users.RemovePasskeyOf(ctx, u.ID, key.ID, "operator"); err != nil {
				return err
			}
			newPrinter(a).printf("The passkey %s of %s is removed; all sessions are ended.\n", printable(key.Name), printable(u.Email))
			if u.Password == "" && len(u.Passkeys) == 1 {
				fmt.Fprintln(a.stderr, "It was the last way to sign in: give the user a password-reset token (POST /v1/users/{id}/password-reset).")
			}
			return nil
		})
	}
}

func findPasskey(u directory.User, what string) (found directory.Passkey, err error) {
	n := 0
	for _, k := range u.Passkeys {
		if k.ID == what {
			return k, nil
		}
		if k.Name == what {
			found, n = k, n+1
		}
	}
	switch n {
	case 1:
		return found, nil
	case 0:
		return found, fmt.Errorf("%s has no passkey %q: see counterfoil user passkeys", printable(u.Email), what)
	}
	return found, fmt.Errorf("%s has %d passkeys named %q: give the ID, see counterfoil user passkeys", printable(u.Email), n, what)
}
