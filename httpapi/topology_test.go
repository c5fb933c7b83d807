package httpapi_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
)

func TestCheckTopology(t *testing.T) {
	for _, tt := range []struct {
		issuer, origins string
		want            string // "" good; "issuer: …" or "origin: …" an error; "warns: …" the first warning
	}{
		{"https://app.example", "", ""},
		{"https://auth.example.com", "https://app.example.com https://www.example.com:8443 https://example.com", ""},
		{"https://example.com/auth", "https://app.example.com", ""},
		{"https://auth.example.co.uk", "https://app.example.co.uk", ""},
		{"https://shop.vercel.app", "https://shop.vercel.app", ""},
		{"https://auth.shop.vercel.app", "https://app.shop.vercel.app", ""},
		{"http://localhost:8700", "http://localhost:3000", ""},
		{"http://127.0.0.1:8700", "http://127.0.0.1:3000", ""},
		{"http://[::1]:8700", "http://[::1]:3000", ""},
		{"https://intranet", "https://intranet:8443", ""},
		{"https://auth.corp.internal", "https://app.corp.internal", ""},
		{"https://xn--bcher-kva.example", "https://www.xn--bcher-kva.example", ""},

		// A public suffix is nobody's own host.
		{"https://co.uk", "", "issuer: co.uk, which is a public suffix"},
		{"https://com", "", "warns: issuer https://com has the host com, which is a public suffix"},
		{"https://app:8443", "https://app", "warns: unless it is a name of your own network"},
		{"https://vercel.app", "", "issuer: vercel.app, which is a public suffix"},
		{"https://github.io/auth", "", "issuer: such as app.github.io"},
		{"https://app.example.com", "https://co.uk", "origin: co.uk, which is a public suffix"},
		{"https://shop.vercel.app", "https://vercel.app", "origin: vercel.app, which is a public suffix"},
		{"https://foo.ck", "", "issuer: public suffix"}, // *.ck
		{"https://www.ck", "", ""}, // !www.ck

		// Another site: pain of every browser that blocks third-party cookies, and of Lax in all of them.
		{"https://auth.example.com", "https://app.example.net", "warns: another site (example.net) than the issuer (example.com)"},
		{"https://auth.example.com", "https://shop.vercel.app", "warns: have the pages' own host pass /auth/* on"},
		{"https://auth.vercel.app", "https://shop.vercel.app", "warns: each host below the public suffix vercel.app is a site of its own"},
		{"https://auth.co.uk", "https://app.co.uk", "warns: each host below the public suffix co.uk is a site of its own"},
		{"https://auth.com", "https://app.com", "warns: another site (app.com) than the issuer (auth.com)"},
		{"https://auth.example.com", "https://app.example.com https://evilexample.com", "warns: origin https://evilexample.com"},
		{"https://auth.example.com", "http://localhost:3000", "warns: another site (localhost)"},
		{"https://intranet", "https://handbook", "warns: another site (handbook)"},

		// Schemes are part of a site.
		{"https://localhost:8443", "http://localhost:3000", "warns: its scheme is http and that of the issuer https"},
		{"http://localhost:8700", "https://localhost:3000", "warns: its scheme is https and that of the issuer http"},
		{"https://auth.example.com", "http://app.example.com", "origin: must be https"},

		// Addresses have no domain.
		{"http://localhost:8700", "http://127.0.0.1:3000", "warns: use the same name in both"},
		{"https://192.0.2.1", "", "warns: the host is an IP address"},
		{"https://auth.example.com", "https://192.0.2.1", "warns: another site (192.0.2.1)"},

		{"https://auth.example.com", "*", "origin: name each origin by itself"},
		{"", "", "issuer: must be a plain https URL"},
	} {
		warnings, err := httpapi.CheckTopology(tt.issuer, strings.Fields(tt.origins)...)
		kind, fragment, _ := strings.Cut(tt.want, ": ")
		var field *counterfoil.FieldError
		switch {
		case kind == "" && (err != nil || warnings != nil),
			kind == "warns" && (err != nil || len(warnings) == 0 || !strings.Contains(warnings[0], fragment)),
			(kind == "issuer" || kind == "origin") && (!errors.As(err, &field) || field.Field != kind || !strings.Contains(field.Message, fragment)):
			t.Errorf("issuer %q, origins %q:\n got %q, %v\nwant %s", tt.issuer, tt.origins, warnings, err, tt.want)
		}
	}
}
