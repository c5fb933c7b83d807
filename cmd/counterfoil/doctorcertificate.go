package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	certificateSoon = 30 * day
	certificateLate = 3 * day // nobody renews it in time by itself any more
)

// checkCertificate looks at the files of --tls-cert and --tls-key.
func checkCertificate(_ context.Context, p *patient) []finding {
	cert, key := string(p.flags.tlsCert), string(p.flags.tlsKey)
	if cert == "" || key == "" {
		return nil // one alone is told by the check of the settings
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return []finding{fail("files", fmt.Sprintf("%s and %s cannot be used (%s), and serve refuses to start", cert, key, strings.TrimPrefix(err.Error(), "tls: ")),
			"give the certificate chain (leaf first) and the private key that belongs to it, both as PEM")}
	}
	var chain []*x509.Certificate
	for _, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return []finding{fail("files", fmt.Sprintf("%s: %v", cert, err), "give the certificate chain as PEM, leaf first")}
		}
		chain = append(chain, c)
	}
	found := []finding{ok("key", "%s is the key of %s", key, cert)}
	if info, err := os.Stat(key); err == nil && os.PathSeparator == '/' && info.Mode().Perm()&0o007 != 0 {
		found = append(found, warn("key file", fmt.Sprintf("every user of this machine can read %s (mode %04o)", key, info.Mode().Perm()), "chmod o= "+key))
	}
	found = append(found, p.judgeChain(chain)...)
	return append(found, ok("renewal", "a certificate that was replaced is read at the next start of serve"))
}

// judgeChain says what clients of the issuer will think of a certificate.
func (p *patient) judgeChain(chain []*x509.Certificate) (found []finding) {
	leaf := chain[0]
	found = append(found, judgeExpiry(leaf, p.now()))
	if u, err := url.Parse(string(p.flags.issuer)); err == nil && u.Hostname() != "" {
		if err := leaf.VerifyHostname(u.Hostname()); err != nil {
			found = append(found, fail("names", fmt.Sprintf("it is for %s, not for %s, the host of the issuer: every client refuses it", names(leaf), u.Hostname()),
				"get one for "+u.Hostname()+", or mend --issuer"))
		} else {
			found = append(found, ok("names", "it covers %s", u.Hostname()))
		}
	}
	others := x509.NewCertPool()
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	options := x509.VerifyOptions{Roots: p.roots, Intermediates: others, CurrentTime: within(p.now(), leaf)}
	if _, err := leaf.Verify(options); err != nil {
		return append(found, warn("chain", fmt.Sprintf("this machine does not trust it (%s): clients that do not know %q refuse it", strings.TrimPrefix(err.Error(), "x509: "), leaf.Issuer.CommonName),
			"put the intermediate certificates into the file of --tls-cert, after the leaf; with an authority of your own, give its root to every client"))
	}
	return append(found, ok("chain", "it leads to a root that this machine trusts"))
}

// trust sets the roots that certificates lead to; nil: the system's.
func (p *patient) trust(roots *x509.CertPool) {
	p.roots = roots
	if transport, ok := p.http.Transport.(*http.Transport); ok {
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
}

// within keeps the check of the chain from telling of the expiry again.
func within(now time.Time, c *x509.Certificate) time.Time {
	switch {
	case now.After(c.NotAfter):
		return c.NotAfter
	case now.Before(c.NotBefore):
		return c.NotBefore
	}
	return now
}

func judgeExpiry(leaf *x509.Certificate, now time.Time) finding {
	const check, renew = "expiry", "renew it (certbot renew, or as you got it), then restart serve"
	left := leaf.NotAfter.Sub(now)
	switch {
	case left <= 0:
		return fail(check, fmt.Sprintf("it expired %s ago: every client refuses it", roughly(-left)), renew)
	case now.Before(leaf.NotBefore):
		return fail(check, fmt.Sprintf("it is good from %s on only: every client refuses it", exact(leaf.NotBefore)), "look at the clock of this machine, or wait")
	case left < certificateLate:
		return fail(check, fmt.Sprintf("it expires in %s", roughly(left)), renew)
	case left < certificateSoon:
		return warn(check, fmt.Sprintf("it expires in %s", roughly(left)), renew)
	}
	return ok(check, "it is good for %s more", roughly(left))
}

func names(c *x509.Certificate) string {
	list := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		if addr, good := netip.AddrFromSlice(ip); good {
			list = append(list, addr.Unmap().String())
		}
	}
	if len(list) == 0 {
		return "no name"
	}
	return strings.Join(list, ", ")
}
