// Package guard sets the headers that every answer of ours carries, so that
// API and pages say the same.
package guard

import "net/http"

// Headers forbids caches, sniffing, framing and the sending of referrers
// (SEC-102, SEC-103). contentPolicy is the Content-Security-Policy.
func Headers(h http.Header, contentPolicy string) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
}

// Transport keeps browsers on https for a year (RFC 6797). A policy that the
// application set already stays.
func Transport(h http.Header, subdomains bool) {
	const name = "Strict-Transport-Security"
	if h.Get(name) != "" {
		return
	}
	value := "max-age=31536000"
	if subdomains {
		value += "; includeSubDomains"
	}
	h.Set(name, value)
}
