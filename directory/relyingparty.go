package directory

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/counterfoil/counterfoil"
)

// RelyingParty is what passkeys are bound to (WebAuthn Level 3, section 4).
// Zero values mean the stated default.
type RelyingParty struct {
	// ID is a host name: passkeys made under it work at it and at the hosts
	// below it, and nowhere else. Another ID later makes all of them useless.
	// Default: the host of the issuer, and "localhost" for an issuer on
	// 127.0.0.1 or ::1, where browsers make no passkeys. An issuer at any
	// other IP address has none: passkeys are off.
	ID string
	// Name is what the browser shows; default the ID.
	Name string
	// Origins are the pages that may use passkeys, as browsers send them:
	// "https://app.example". Each host is the ID or below it. Default: the
	// issuer's origin.
	Origins []string
}

const maxRelyingPartyName = 64

// withDefaults derives what is not set from the issuer. The ID stays empty
// where there can be no passkeys.
func (p RelyingParty) withDefaults(issuer string) RelyingParty {
	p.Origins = slices.Clone(p.Origins)
	u, err := url.Parse(issuer)
	if err != nil {
		return p // the authority has checked it
	}
	host, port := u.Hostname(), u.Port()
	ip := net.ParseIP(host)
	if ip != nil && ip.IsLoopback() {
		host, ip = localhost, nil
	}
	if p.ID == "" && ip == nil {
		p.ID = host
	}
	if p.ID != "" && len(p.Origins) == 0 && ip == nil {
		origin := u.Scheme + "://" + host
		if port != "" {
			origin += ":" + port
		}
		p.Origins = []string{origin}
	}
	if p.Name == "" {
		p.Name = p.ID
	}
	return p
}

const localhost = "localhost"

// validate checks what browsers would refuse later, and where: at a page that
// cannot make a passkey and does not say why. given is the configured ID; one
// that was taken from the issuer equals its host, which browsers take always.
func (p *RelyingParty) validate(given string) error {
	if p.ID == "" {
		if len(p.Origins) > 0 {
			return &counterfoil.FieldError{Field: "RelyingParty.ID", Message: "must be set: passkeys cannot be bound to the issuer, whose host is an IP address"}
		}
		return nil
	}
	if !hostName(p.ID) {
		return &counterfoil.FieldError{Field: "RelyingParty.ID", Message: fmt.Sprintf("%q must be a host name in lower case, such as app.example, without scheme and port", p.ID)}
	}
	if given != "" {
		if suffix, icann := publicsuffix.PublicSuffix(p.ID); suffix == p.ID && (icann || strings.Contains(suffix, ".")) {
			return &counterfoil.FieldError{Field: "RelyingParty.ID", Message: fmt.Sprintf("%q is a public suffix, under which anybody can have a host: name your own domain", p.ID)}
		}
	}
	if len(p.Name) > maxRelyingPartyName || !printable(p.Name) {
		return &counterfoil.FieldError{Field: "RelyingParty.Name", Message: "must be at most 64 bytes of printable text"}
	}
	if len(p.Origins) == 0 {
		return &counterfoil.FieldError{Field: "RelyingParty.Origins", Message: "name at least one: the issuer's host is an IP address, where browsers make no passkeys"}
	}
	for i, origin := range p.Origins {
		if problem := p.wrongOrigin(origin); problem != "" {
			return &counterfoil.FieldError{Field: fmt.Sprintf("RelyingParty.Origins[%d]", i), Message: fmt.Sprintf("%q %s", origin, problem)}
		}
	}
	return nil
}

// wrongOrigin says what is wrong with an origin; empty when nothing is.
func (p *RelyingParty) wrongOrigin(origin string) string {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || origin != u.Scheme+"://"+u.Host || origin != strings.ToLower(origin) {
		return `must have the form "https://host" or "https://host:port", in lower case`
	}
	host := u.Hostname()
	switch {
	case u.Scheme != "https" && (u.Scheme != "http" || host != localhost && !strings.HasSuffix(host, "."+localhost)):
		return "must be https (plain http is taken on localhost only)"
	case strings.HasSuffix(u.Host, ":"), u.Scheme == "https" && u.Port() == "443", u.Scheme == "http" && u.Port() == "80":
		return "must leave out the default port, as browsers do"
	case !hostName(host):
		return "must name a host, not an address: browsers make no passkeys there"
	case host != p.ID && !strings.HasSuffix(host, "."+p.ID):
		return fmt.Sprintf("must be at %s or below it: the relying party's ID is a suffix of each origin's host", p.ID)
	case host != p.ID && !strings.Contains(p.ID, "."):
		return fmt.Sprintf("is below %s, for which browsers make no passkeys: only for that host itself", p.ID)
	}
	return ""
}

func hostName(host string) bool {
	if host == "" || len(host) > 253 || net.ParseIP(host) != nil {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}
