package main

import (
	"slices"
	"testing"

	"github.com/counterfoil/counterfoil/directory"
)

func TestRelyingParty(t *testing.T) {
	for _, tt := range []struct {
		name, domain, issuer string
		origins              []string
		wantID               string
		want                 []string
	}{
		{"the issuer alone: the library's defaults", "", "https://app.example", nil, "", nil},
		{"a loopback address: the library's defaults", "", "http://127.0.0.1:8700", nil, "", nil},
		{"pages below the issuer's host", "", "https://example.com", []string{"https://app.example.com", "https://other.example"}, "example.com",
			[]string{"https://example.com", "https://app.example.com"}},
		{"pages beside the issuer's host share nothing by themselves", "", "https://auth.example.com", []string{"https://app.example.com"}, "", nil},
		{"pages beside it share the domain above", "example.com", "https://auth.example.com/path", []string{"https://app.example.com", "https://notexample.com"}, "example.com",
			[]string{"https://auth.example.com", "https://app.example.com"}},
		{"ports of one host", "", "http://localhost:8700", []string{"http://localhost:3000"}, "localhost",
			[]string{"http://localhost:8700", "http://localhost:3000"}},
	} {
		got := relyingParty(tt.domain, tt.issuer, tt.origins)
		if got.ID != tt.wantID || !slices.Equal(got.Origins, tt.want) {
			t.Errorf("%s: got %+v", tt.name, got)
		}
	}
}

func TestFindPasskey(t *testing.T) {
	u := directory.User{Email: "ann@example.org", Passkeys: []directory.Passkey{{ID: "id1", Name: "Phone"}, {ID: "id2", Name: "Key"}, {ID: "id3", Name: "Key"}}}
	for what, want := range map[string]string{"id3": "id3", "Phone": "id1", "Key": "", "Laptop": ""} {
		if got, err := findPasskey(u, what); got.ID != want && err == nil || want != "" && err != nil {
			t.Errorf("%q: got %q, %v", what, got.ID, err)
		}
	}
}
