package clientip

import (
	"net/http"
	"net/netip"
	"testing"
)

func TestSEC89OnlyTrustedProxiesAreBelieved(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, tt := range []struct {
		name, remote string
		forwarded    []string
		trusted      []netip.Prefix
		want         string
	}{
		{"no proxy configured", "203.0.113.9:1234", []string{"1.2.3.4"}, nil, "203.0.113.9"},
		{"the peer is no proxy", "203.0.113.9:1234", []string{"1.2.3.4"}, trusted, "203.0.113.9"},
		{"one proxy", "10.0.0.1:80", []string{"198.51.100.7"}, trusted, "198.51.100.7"},
		{"a forged left end", "10.0.0.1:80", []string{"1.2.3.4, 198.51.100.7"}, trusted, "198.51.100.7"},
		{"two proxies", "10.0.0.1:80", []string{"1.2.3.4, 198.51.100.7, 10.9.9.9"}, trusted, "198.51.100.7"},
		{"two headers", "10.0.0.1:80", []string{"1.2.3.4", "198.51.100.7"}, trusted, "198.51.100.7"},
		{"garbage ends the walk", "10.0.0.1:80", []string{"198.51.100.7, what"}, trusted, "10.0.0.1"},
		{"all hops trusted", "10.0.0.1:80", []string{"10.1.1.1"}, trusted, "10.1.1.1"},
		{"IPv6", "[::1]:80", []string{"2001:db8::5"}, trusted, "2001:db8::5"},
		{"mapped IPv4", "[::ffff:10.0.0.1]:80", []string{"198.51.100.7"}, trusted, "198.51.100.7"},
		{"no address", "", nil, trusted, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: tt.remote, Header: http.Header{"X-Forwarded-For": tt.forwarded}}
			if got := From(r, tt.trusted); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if a, b := Network("2001:db8:1:2:3::1"), Network("2001:db8:1:2:4::9"); a != b || a == "" {
		t.Errorf("IPv6 counts by /64: %q %q", a, b)
	}
}
