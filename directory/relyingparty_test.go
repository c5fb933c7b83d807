package directory_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/memstore"
)

func authorityAt(t *testing.T, issuer string) (*counterfoil.Authority, directory.Store) {
	t.Helper()
	store := memstore.New()
	auth, err := counterfoil.New(t.Context(), store, counterfoil.Config{
		Issuer: issuer, Audiences: []string{"app"}, Seal: counterfoil.SealSecrets(make([]byte, 32)), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = auth.Close() })
	return auth, store.Users()
}

func TestRelyingPartyConfig(t *testing.T) {
	auth, users := authorityAt(t, "https://app.example.org")
	for name, c := range map[string]struct {
		party directory.RelyingParty
		field string
	}{
		"defaults":                     {directory.RelyingParty{}, ""},
		"above the issuer":             {directory.RelyingParty{ID: "example.org"}, ""},
		"several origins":              {directory.RelyingParty{ID: "example.org", Origins: []string{"https://example.org", "https://a.b.example.org:8443"}}, ""},
		"elsewhere":                    {directory.RelyingParty{ID: "example.net", Origins: []string{"https://example.net"}}, ""},
		"localhost":                    {directory.RelyingParty{ID: "localhost", Origins: []string{"http://localhost:3000"}}, ""},
		"own host of one label":        {directory.RelyingParty{ID: "intranet", Origins: []string{"https://intranet"}}, ""},
		"public suffix":                {directory.RelyingParty{ID: "org", Origins: []string{"https://example.org"}}, "RelyingParty.ID"},
		"public suffix of two labels":  {directory.RelyingParty{ID: "co.uk", Origins: []string{"https://example.co.uk"}}, "RelyingParty.ID"},
		"private public suffix":        {directory.RelyingParty{ID: "github.io", Origins: []string{"https://me.github.io"}}, "RelyingParty.ID"},
		"with scheme":                  {directory.RelyingParty{ID: "https://example.org"}, "RelyingParty.ID"},
		"with port":                    {directory.RelyingParty{ID: "example.org:443"}, "RelyingParty.ID"},
		"upper case":                   {directory.RelyingParty{ID: "Example.org"}, "RelyingParty.ID"},
		"address":                      {directory.RelyingParty{ID: "192.0.2.1", Origins: []string{"https://192.0.2.1"}}, "RelyingParty.ID"},
		"final dot":                    {directory.RelyingParty{ID: "example.org."}, "RelyingParty.ID"},
		"not a suffix of the issuer":   {directory.RelyingParty{ID: "example.net"}, "RelyingParty.Origins[0]"},
		"not a suffix by label":        {directory.RelyingParty{ID: "example.org", Origins: []string{"https://myexample.org"}}, "RelyingParty.Origins[0]"},
		"second origin elsewhere":      {directory.RelyingParty{ID: "example.org", Origins: []string{"https://example.org", "https://example.net"}}, "RelyingParty.Origins[1]"},
		"below a host of one label":    {directory.RelyingParty{ID: "intranet", Origins: []string{"https://a.intranet"}}, "RelyingParty.Origins[0]"},
		"plain http":                   {directory.RelyingParty{Origins: []string{"http://app.example.org"}}, "RelyingParty.Origins[0]"},
		"default port":                 {directory.RelyingParty{Origins: []string{"https://app.example.org:443"}}, "RelyingParty.Origins[0]"},
		"path":                         {directory.RelyingParty{Origins: []string{"https://app.example.org/"}}, "RelyingParty.Origins[0]"},
		"wildcard":                     {directory.RelyingParty{Origins: []string{"https://*.app.example.org"}}, "RelyingParty.Origins[0]"},
		"null":                         {directory.RelyingParty{Origins: []string{"null"}}, "RelyingParty.Origins[0]"},
		"origin with user":             {directory.RelyingParty{Origins: []string{"https://u@app.example.org"}}, "RelyingParty.Origins[0]"},
		"name that cannot be printed":  {directory.RelyingParty{Name: "a\x00b"}, "RelyingParty.Name"},
		"name that is much too long":   {directory.RelyingParty{Name: strings.Repeat("x", 65)}, "RelyingParty.Name"},
		"app of an address at a phone": {directory.RelyingParty{Origins: []string{"android:apk-key-hash:x"}}, "RelyingParty.Origins[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := directory.New(auth, users, directory.Config{RelyingParty: c.party})
			if c.field == "" {
				if err != nil || !d.PasskeysOn() {
					t.Errorf("got error %v, want it taken", err)
				}
				return
			}
			var wrong *counterfoil.FieldError
			if !errors.As(err, &wrong) || wrong.Field != c.field || wrong.Message == "" {
				t.Errorf("got error %v, want one of the field %s", err, c.field)
			}
		})
	}
}

func TestRelyingPartyOfTheIssuer(t *testing.T) {
	for issuer, want := range map[string]string{
		"https://app.example.org:8443/auth": `"rpId":"app.example.org"`,
		"http://localhost:8700":             `"rpId":"localhost"`,
		"http://127.0.0.1:8700":             `"rpId":"localhost"`,
		"http://[::1]:8700":                 `"rpId":"localhost"`,
		"https://192.0.2.1":                 "",
	} {
		t.Run(issuer, func(t *testing.T) {
			auth, users := authorityAt(t, issuer)
			d, err := directory.New(auth, users, directory.Config{})
			if err != nil {
				t.Fatal(err)
			}
			c, err := d.BeginPasskeySignIn(t.Context(), from("192.0.2.7"))
			if want == "" {
				wantIs(t, "without a host name", err, directory.ErrPasskeysOff)
				_, _, err = d.SignUpWithPasskey(t.Context(), directory.SignIn{})
				wantIs(t, "sign-up", err, directory.ErrPasskeysOff)
				_, err = directory.New(auth, users, directory.Config{RelyingParty: directory.RelyingParty{ID: "app.example"}})
				var wrong *counterfoil.FieldError
				if !errors.As(err, &wrong) || wrong.Field != "RelyingParty.Origins" {
					t.Errorf("an ID without origins: %v", err)
				}
				return
			}
			if err != nil || !strings.Contains(string(c.Options), want) {
				t.Errorf("got options %s, %v; want %s", c.Options, err, want)
			}
		})
	}
}
