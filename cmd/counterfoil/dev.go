package main

import (
	"context"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// greet tells who runs --dev what to try. It goes to stdout, since the API key
// is in it and logs hold no secrets.
func greet(ctx context.Context, a *app, n *node, pages bool) error {
	secret, _, err := n.auth.CreateAPIKey(ctx, counterfoil.NewAPIKey{Name: "dev"})
	if err != nil {
		return err
	}
	p := newPrinter(a)
	p.printf("%s\n\n", p.paint(bold, "Counterfoil, to try it out: everything is in memory and gone when this stops."))
	rows := [][]cell{
		{styled(dim, "address"), text(n.auth.Config().Issuer)},
		{styled(dim, "API key"), text(secret.Reveal())},
	}
	if pages {
		rows = append(rows, []cell{styled(dim, "pages"), text(n.auth.Config().Issuer + accountPath + "/")})
	}
	p.columns("  ", rows)
	p.printf("\nSign up, and use the access_token of the answer:\n\n%s\n\n", strings.ReplaceAll(devExample, "ISSUER", n.auth.Config().Issuer))
	return nil
}

const devExample = `  curl ISSUER/v1/auth/sign-up -H 'Content-Type: application/json' \
    -d '{"email":"ann@example.org","password":"a long one of my own","transport":"body"}'
  curl ISSUER/oauth2/userinfo -H "Authorization: Bearer $ACCESS_TOKEN"`
