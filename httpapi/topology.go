package httpapi

import (
	"fmt"
	"net"
	"net/url"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/counterfoil/counterfoil"
)

// CheckTopology says whether browsers will carry the session cookie between
// the host of the issuer, at which [Device] is served, and the pages of the
// origins given to [WithOrigins]. A site is a scheme and a registrable domain,
// one label below a public suffix; a SameSite=Lax cookie travels within its
// site only. Call it at start-up: what it finds shows in browsers only, and
// there as a user who is signed out for no reason.
//
// The error is a [*counterfoil.FieldError] of "issuer" or "origin" and tells
// of what can never work. The warnings tell of what works for some purposes,
// such as an origin whose pages send the session token themselves.
func CheckTopology(issuer string, origins ...string) (warnings []string, err error) {
	home, err := url.Parse(issuer)
	if err != nil || home.Hostname() == "" {
		return nil, &counterfoil.FieldError{Field: "issuer", Message: fmt.Sprintf("%q must be a plain https URL", issuer)}
	}
	suffix := func(field, value, host string) error {
		why, never := suffixHost(host)
		if never {
			return &counterfoil.FieldError{Field: field, Message: fmt.Sprintf("%q %s", value, why)}
		}
		if why != "" {
			warnings = append(warnings, field+" "+value+" "+why)
		}
		return nil
	}
	if err := suffix("issuer", issuer, home.Hostname()); err != nil {
		return nil, err
	}
	if ip := net.ParseIP(home.Hostname()); ip != nil && !ip.IsLoopback() {
		warnings = append(warnings, fmt.Sprintf("issuer %s: the host is an IP address: passkeys need a name, and few authorities certify addresses; give the host a name", issuer))
	}
	for _, origin := range origins {
		if err := CheckOrigin(origin); err != nil {
			return nil, err
		}
		page, err := url.Parse(origin)
		if err != nil {
			return nil, &counterfoil.FieldError{Field: "origin", Message: fmt.Sprintf("%q cannot be read", origin)}
		}
		if err := suffix("origin", origin, page.Hostname()); err != nil {
			return nil, err
		}
		if why := apart(home, page); why != "" {
			warnings = append(warnings, fmt.Sprintf("origin %s: %s", origin, why))
		}
	}
	return warnings, nil
}

// suffixHost says what is wrong with a host under which strangers have theirs,
// or nothing. A name of one label may be that of a private network, such as
// "app"; it is good there.
func suffixHost(host string) (why string, never bool) {
	suffix, listed := suffixOf(host)
	if !listed || suffix != strings.TrimSuffix(host, ".") {
		return "", false
	}
	why = fmt.Sprintf("has the host %[1]s, which is a public suffix: under it strangers have hosts of their own, and browsers share nothing between them; name your own host below it, such as app.%[1]s", suffix)
	if !strings.Contains(suffix, ".") {
		return why + ", unless it is a name of your own network", false
	}
	return why, true
}

// suffixOf is the public suffix of a host, and whether the list has it. What
// the list does not have counts as one label.
func suffixOf(host string) (suffix string, listed bool) {
	if net.ParseIP(host) != nil {
		return "", false
	}
	suffix, icann := publicsuffix.PublicSuffix(strings.TrimSuffix(host, "."))
	// The rule for what is not listed gives one label; private rules have two at least.
	return suffix, icann || strings.Contains(suffix, ".")
}

// siteOf is the registrable domain of a host, or the host where it has none.
func siteOf(host string) string {
	if net.ParseIP(host) != nil {
		return host
	}
	if domain, err := publicsuffix.EffectiveTLDPlusOne(strings.TrimSuffix(host, ".")); err == nil {
		return domain
	}
	return host
}

// apart says why pages of one URL get no Lax cookie of the other, or nothing.
func apart(home, page *url.URL) string {
	const instead = "have the pages' own host pass /auth/* on to this server, or let their backend keep the session (POST /v1/sessions) and set its own cookie"
	ours, theirs := siteOf(home.Hostname()), siteOf(page.Hostname())
	suffix, listed := suffixOf(home.Hostname())
	other, _ := suffixOf(page.Hostname())
	switch {
	case ours == theirs && home.Scheme == page.Scheme:
		return ""
	case ours == theirs:
		return fmt.Sprintf("its scheme is %s and that of the issuer %s: browsers take the two for different sites, and the session cookie does not travel between them; use one scheme for both", page.Scheme, home.Scheme)
	case loopback(home.Hostname()) && loopback(page.Hostname()):
		return fmt.Sprintf("%s and %s are two sites for a browser, and the session cookie does not travel between them; use the same name in both", page.Hostname(), home.Hostname())
	case listed && suffix == other && strings.Contains(suffix, "."):
		return fmt.Sprintf("each host below the public suffix %s is a site of its own, so the session cookie of %s does not travel to it; %s", suffix, home.Hostname(), instead)
	}
	return fmt.Sprintf("it is of another site (%s) than the issuer (%s), so browsers send it no session cookie and keep none; %s. Only pages that send the session token themselves are served there", theirs, ours, instead)
}
