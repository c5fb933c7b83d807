// Package clientip finds the address of the client behind trusted proxies.
package clientip

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// From returns the client's address. X-Forwarded-For is read from its right
// end, and only as far as each hop is a trusted proxy: what a client wrote
// there itself is never believed. With no trusted proxies the connection's
// address is the answer.
func From(r *http.Request, trusted []netip.Prefix) string {
	peer, ok := parse(r.RemoteAddr)
	if !ok {
		return ""
	}
	if !contains(trusted, peer) {
		return peer.String()
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop, ok := parse(strings.TrimSpace(hops[i]))
		if !ok {
			break
		}
		peer = hop
		if !contains(trusted, hop) {
			break
		}
	}
	return peer.String()
}

// Network groups addresses that one customer of a provider typically holds:
// an IPv4 address by itself, an IPv6 address by its /64.
func Network(ip string) string {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return ""
	}
	if addr.Is6() {
		return netip.PrefixFrom(addr.WithZone(""), 64).Masked().String()
	}
	return addr.String()
}

func parse(s string) (netip.Addr, bool) {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		return netip.Addr{}, false
	}
	return addr.Unmap().WithZone(""), true
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Trusts reports whether the other end of r's connection is a trusted proxy,
// so that what it says of the client may be believed.
func Trusts(r *http.Request, trusted []netip.Prefix) bool {
	peer, ok := parse(r.RemoteAddr)
	return ok && contains(trusted, peer)
}
