package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
)

func apiKeyCommand() *command {
	return &command{
		name:  "api-key",
		short: "API keys of backends and verifiers",
		children: []*command{
			{
				name:  "create",
				short: "Make an API key and print it once",
				long: `The key is printed on stdout and nothing else is, so that a script can take it.
Only its hash is kept.`,
				examples: []string{
					"counterfoil api-key create --name shop-backend",
					"counterfoil api-key create --name orders --scope verify --expires 90d",
				},
				setup: apiKeyCreate,
			},
			{
				name:  "list",
				short: "List API keys, newest first",
				setup: apiKeyList,
			},
			{
				name:     "revoke",
				args:     "ID",
				short:    "End an API key",
				long:     "Servers notice within a second. Ending an ended key is no error.",
				examples: []string{"counterfoil api-key revoke 2f7Qd0KuTmC1sYxW8bZrLhNa"},
				setup:    apiKeyRevoke,
			},
		},
	}
}

// apiKeyJSON is an API key as JSON shows it. key is there once.
type apiKeyJSON struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	Key        string   `json:"key,omitempty"`
	ClientID   string   `json:"client_id"`
	Scope      []string `json:"scope"`
	CreatedAt  *int64   `json:"created_at"`
	ExpiresAt  *int64   `json:"expires_at,omitempty"`
	LastUsedAt *int64   `json:"last_used_at,omitempty"`
	RevokedAt  *int64   `json:"revoked_at,omitempty"`
}

func toAPIKeyJSON(k counterfoil.APIKey) apiKeyJSON {
	return apiKeyJSON{
		ID: k.ID, Name: k.Name, ClientID: k.ClientID, Scope: k.Scopes, CreatedAt: unix(k.CreatedAt),
		ExpiresAt: unix(k.ExpiresAt), LastUsedAt: unix(k.LastUsedAt), RevokedAt: unix(k.RevokedAt),
	}
}

func apiKeyCreate(a *app, f *flags) func(context.Context, []string) error {
	var name textValue
	var scopes listValue
	var expires durationValue
	f.add(&name, "name", "NAME", "what the key is for")
	f.add(&scopes, "scope", "SCOPE", fmt.Sprintf("what it may do: %s; several by comma; all when left out", strings.Join(counterfoil.BackendScopes, ", ")))
	f.add(&expires, "expires", "DURATION", "how long it is good; for ever when left out")
	client := clientIDFlag(f)
	database := storesFlags(f)
	asJSON := jsonFlag(f)
	f.configFlag()
	return func(ctx context.Context, args []string) error {
		if err := noArgs(args); err != nil {
			return err
		}
		if name == "" {
			return usagef("--name is missing: say what the key is for")
		}
		spec := counterfoil.NewAPIKey{Name: string(name), ClientID: string(*client), Scopes: scopes}
		if expires > 0 {
			spec.ExpiresAt = time.Now().Add(time.Duration(expires))
		}
		return withOperator(ctx, *database, string(*client), func(o *operator) error {
			secret, key, err := o.CreateAPIKey(ctx, spec)
			if err != nil {
				return flagError(err)
			}
			p := newPrinter(a)
			if *asJSON {
				out := toAPIKeyJSON(key)
				out.Key = secret.Reveal()
				return p.json(out)
			}
			p.printf("%s\n", secret.Reveal())
			fmt.Fprintf(a.stderr, "API key %s %q for %s, scope %s. It is shown this once.\n", key.ID, key.Name, key.ClientID, strings.Join(key.Scopes, " "))
			return nil
		})
	}
}

func apiKeyList(a *app, f *flags) func(context.Context, []string) error {
	database := storesFlags(f)
	asJSON := jsonFlag(f)
	f.configFlag()
	return func(ctx context.Context, args []string) error {
		if err := noArgs(args); err != nil {
			return err
		}
		return withOperator(ctx, *database, "", func(o *operator) error {
			keys, err := o.APIKeys(ctx)
			if err != nil {
				return err
			}
			p := newPrinter(a)
			if *asJSON {
				list := make([]apiKeyJSON, 0, len(keys))
				for _, k := range keys {
					list = append(list, toAPIKeyJSON(k))
				}
				return p.json(map[string]any{"api_keys": list})
			}
			if len(keys) == 0 {
				fmt.Fprintln(a.stderr, "There are no API keys.")
				return nil
			}
			rows := [][]cell{{text("ID"), text("NAME"), text("STATUS"), text("SCOPE"), text("CLIENT"), text("CREATED"), text("LAST USED"), text("EXPIRES")}}
			for _, k := range keys {
				expires := "never"
				if !k.ExpiresAt.IsZero() {
					expires = p.ago(k.ExpiresAt)
				}
				rows = append(rows, []cell{
					text(k.ID), text(k.Name), apiKeyStatus(k, p.now), text(strings.Join(k.Scopes, " ")), text(k.ClientID),
					text(p.ago(k.CreatedAt)), text(p.ago(k.LastUsedAt)), text(expires),
				})
			}
			p.table(rows)
			return nil
		})
	}
}

func apiKeyStatus(k counterfoil.APIKey, now time.Time) cell {
	switch {
	case !k.RevokedAt.IsZero():
		return styled(bad, "revoked")
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return styled(warning, "expired")
	}
	return styled(good, "good")
}

func apiKeyRevoke(a *app, f *flags) func(context.Context, []string) error {
	database := storesFlags(f)
	asJSON := jsonFlag(f)
	f.configFlag()
	return func(ctx context.Context, args []string) error {
		id, err := oneArg(args, "the key's ID")
		if err != nil {
			return err
		}
		return withOperator(ctx, *database, "", func(o *operator) error {
			err := o.RevokeAPIKey(ctx, id)
			if errors.Is(err, counterfoil.ErrNotFound) {
				return fmt.Errorf("there is no API key %q: see counterfoil api-key list (the ID, not the key itself)", shortened(id))
			}
			if err != nil {
				return err
			}
			p := newPrinter(a)
			if *asJSON {
				return p.json(map[string]any{"id": id, "status": "revoked"})
			}
			p.printf("API key %s is revoked.\n", id)
			return nil
		})
	}
}

// shortened keeps a secret that was given in place of an id out of messages.
func shortened(id string) string {
	if len(id) > 24 {
		return id[:10] + "…"
	}
	return id
}

func clientIDFlag(f *flags) *textValue {
	v := textValue("default")
	f.add(&v, "client-id", "ID", "the application")
	return &v
}
