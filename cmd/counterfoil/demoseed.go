package main

import (
	"context"
	"errors"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/cmd/counterfoil/internal/demo"
	"github.com/counterfoil/counterfoil/directory"
)

// demoKeyPrefix begins the names of the demo's API keys.
const demoKeyPrefix = "demo: "

// prepare makes what the demo starts with: the user, and the API keys of the
// page and of the protected service. Those of an earlier run on the same
// folder are revoked.
func (r *demoAuthorityReady) prepare(ctx context.Context, n *node) error {
	_, err := n.users.ByEmail(ctx, demo.Ada.Email)
	if errors.Is(err, counterfoil.ErrNotFound) {
		_, err = n.users.Create(ctx, directory.NewUser{Email: demo.Ada.Email, Password: demo.Ada.Passphrase})
	}
	if err != nil {
		return err
	}
	keys, err := n.auth.APIKeys(ctx)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if strings.HasPrefix(key.Name, demoKeyPrefix) && key.RevokedAt.IsZero() {
			if err := n.auth.RevokeAPIKey(ctx, key.ID); err != nil {
				return err
			}
		}
	}
	for _, need := range []struct {
		name   string
		scopes []string
		into   *string
	}{
		{"page", []string{counterfoil.ScopeSessions, counterfoil.ScopeUsers}, &r.PageKey},
		{"orders", []string{counterfoil.ScopeVerify}, &r.OrdersKey},
	} {
		secret, _, err := n.auth.CreateAPIKey(ctx, counterfoil.NewAPIKey{Name: demoKeyPrefix + need.name, Scopes: need.scopes})
		if err != nil {
			return err
		}
		*need.into = secret.Reveal()
	}
	return nil
}
