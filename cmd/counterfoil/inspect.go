package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/opaque"
)

func tokenCommand() *command {
	return &command{
		name:  "token",
		short: "Access tokens",
		children: []*command{{
			name:  "inspect",
			args:  "[TOKEN | -]",
			short: "Say what an access token holds, and which routes would take it",
			long: `The token is read from stdin, or asked for: arguments are visible to other users
of this machine. Its signature is checked with the keys of --database, or of the
authority at --authority (default: --issuer). A live check at an authority takes
an API key with scope verify from COUNTERFOIL_API_KEY.`,
			examples: []string{
				"pbpaste | counterfoil token inspect",
				"counterfoil token inspect --issuer https://app.example --audience orders < token.txt",
				"counterfoil token inspect --database sqlite:counterfoil.db < token.txt",
			},
			setup: tokenInspect,
		}},
	}
}

func tokenInspect(a *app, f *flags) func(context.Context, []string) error {
	var source tokenSource
	f.add((*textValue)(&source.issuer), "issuer", "URL", "the iss that the token must have")
	f.add((*textValue)(&source.audience), "audience", "NAME", "the service that would take it; any when left out")
	f.add((*textValue)(&source.authority), "authority", "URL", "where to fetch keys and ask")
	database := storesFlags(f)
	asJSON := jsonFlag(f)
	f.configFlag()
	return func(ctx context.Context, args []string) error {
		text, err := readToken(ctx, a, args)
		if err != nil {
			return err
		}
		t, err := parseToken(text)
		if err != nil {
			return err
		}
		if f.has("database") {
			source.database = database
		}
		source.apiKey, _ = a.lookupEnv(apiKeyVariable)
		if source.issuer == "" {
			source.tokenIssuer, _ = t.claims["iss"].(string)
		}
		checker, err := source.open(ctx)
		if err != nil {
			return err
		}
		report := judge(ctx, t, checker, time.Now())
		if checker != nil {
			err = checker.close()
		}
		p := newPrinter(a)
		if *asJSON {
			return errors.Join(err, p.json(report))
		}
		showToken(p, t, report)
		return err
	}
}

// readToken takes the token from the argument, from stdin, or from a person.
func readToken(ctx context.Context, a *app, args []string) (text string, err error) {
	switch {
	case len(args) > 1:
		return "", usagef("unexpected argument after the token")
	case len(args) == 1 && args[0] != "-":
		text = args[0]
	case len(args) == 0 && isTerminal(a.stdin):
		text, err = askHidden(ctx, a, "Token (not shown): ")
	default:
		text, err = readAll(ctx, a.stdin)
	}
	if err != nil {
		return "", err
	}
	text = strings.TrimSpace(text)
	if scheme, rest, ok := strings.Cut(text, " "); ok && strings.EqualFold(scheme, "Bearer") {
		text = strings.TrimSpace(rest)
	}
	if text == "" {
		return "", errors.New("there is no token on stdin")
	}
	return text, nil
}

// token is a token as its text says, nothing checked.
type token struct {
	text   string
	header map[string]any
	claims map[string]any
	fault  error // why no verifier reads it
}

// parseToken decodes also what a verifier would refuse: it is to be shown.
func parseToken(text string) (*token, error) {
	for kind, name := range map[opaque.Kind]string{
		opaque.SessionToken: "a session token", opaque.APIKey: "an API key", opaque.PasswordReset: "a password-reset token",
	} {
		if !strings.HasPrefix(text, string(kind)) {
			continue
		}
		parsed, err := opaque.Parse(kind, text)
		switch {
		case err != nil:
			return nil, fmt.Errorf("this begins like %s, but its checksum is wrong: it was copied incompletely", name)
		case kind == opaque.SessionToken:
			return nil, fmt.Errorf("this is %s, not an access token: see counterfoil session why %s", name, parsed.Selector)
		}
		return nil, fmt.Errorf("this is %s (id %s), not an access token", name, parsed.Selector)
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("this is not an access token: it has %d parts divided by dots, not 3", len(parts))
	}
	t := &token{text: text}
	for i, into := range []*map[string]any{&t.header, &t.claims} {
		name := []string{"header", "payload"}[i]
		data, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			return nil, fmt.Errorf("this is not an access token: its %s is not base64url", name)
		}
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		if err := d.Decode(into); err != nil {
			return nil, fmt.Errorf("this is not an access token: its %s is not a JSON object", name)
		}
	}
	_, t.fault = jws.Parse(text)
	return t, nil
}

// time reads a claim in Unix seconds; zero when it is none.
func (t *token) time(claim string) time.Time {
	n, ok := t.claims[claim].(json.Number)
	if !ok {
		return time.Time{}
	}
	s, err := n.Int64()
	if err != nil || s <= 0 {
		return time.Time{}
	}
	return time.Unix(s, 0)
}
