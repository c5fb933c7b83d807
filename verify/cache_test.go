package verify

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/jws"
)

func TestCacheFile(t *testing.T) {
	es := newKey(t, "k1", jws.ES256)
	a := newAuthority(es)
	server := a.serve(t)
	file := filepath.Join(t.TempDir(), "keys.json")
	v := open(t, Config{Authority: server.URL, Cache: file})
	v.revocations.Apply(Revocation{Kind: RevokeKey, ID: "stolen"}, Revocation{Kind: RevokeSession, ID: "s9", Until: time.Now().Add(time.Hour)})
	v.Close()
	v.keys.(*remoteKeys).saveCache()
	server.Close()

	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode(), err)
	}
	if left, _ := filepath.Glob(file + ".*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	saved, _ := os.ReadFile(file)

	// The authority is gone; New returns at once.
	v = open(t, Config{Authority: server.URL, Cache: file})
	check(t, v, es.mint(t, goodClaims(time.Now())), nil)
	check(t, v, es.mint(t, goodClaims(time.Now()).with(claims{"sid": "s9"})), ErrTokenRevoked)
	check(t, v, es.mint(t, goodClaims(time.Now()).with(claims{"exp": time.Now().Unix() + 301})), ErrTokenInvalid)
	if !v.revocations.KeyRevoked("stolen") {
		t.Error("a revoked key was forgotten")
	}

	change := func(old, new string) string {
		s := strings.Replace(string(saved), old, new, 1)
		if s == string(saved) {
			t.Fatalf("%s is not in %s", old, saved)
		}
		return s
	}
	for _, tc := range []struct {
		name, text string
		mode       os.FileMode
	}{
		{"others can read it", string(saved), 0o640},
		{"others can write it", string(saved), 0o602},
		{"another issuer", change(testIssuer, "https://other.example"), 0o600},
		{"a later format", change(`"format":1`, `"format":2`), 0o600},
		{"cut short", string(saved[:len(saved)/2]), 0o600},
		{"empty", "", 0o600},
		{"foreign", `{"hello":"world"}`, 0o600},
		{"bad key", change(`"kty":"EC"`, `"kty":"RSA"`), 0o600},
		{"bad revocations", change(`["k",`, `[5,`), 0o600},
		{"no lifetime", change(`"max_token_lifetime":300`, `"max_token_lifetime":0`), 0o600},
		{"too old", change(`"saved_at":`, `"saved_at":1,"x":`), 0o600},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "keys.json")
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, tc.mode); err != nil {
				t.Fatal(err)
			}
			var log lockedBuffer
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			v, err := New(ctx, Config{Issuer: testIssuer, Audience: testAudience, Authority: server.URL, Cache: file,
				Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			if v.Ready() || !strings.Contains(log.String(), "passed over") {
				t.Errorf("ready: %v, log: %s", v.Ready(), log.String())
			}
		})
	}
	t.Run("members of a later version", func(t *testing.T) {
		if err := os.WriteFile(file, []byte(change(`{`, `{"position":"7.10422",`)), 0o600); err != nil {
			t.Fatal(err)
		}
		check(t, open(t, Config{Authority: server.URL, Cache: file}), es.mint(t, goodClaims(time.Now())), nil)
	})
}
