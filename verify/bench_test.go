package verify

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/jws"
)

// benchClaims are those of an ordinary token of ours, with two roles.
func benchClaims() claims {
	return goodClaims(start).with(claims{
		"sub": "01JD4X1YB0Q6W7R8S9T0V1W2X3", "jti": "4Zk2rVbnTq8LwXyP9sDf3G", "epoch": 1763770000123456,
		"roles": []string{"admin", "editor"},
	})
}

func silent(c *Config, _ *Local) { c.Logger = slog.New(slog.DiscardHandler) }

func cold(c *Config, l *Local) {
	silent(c, l)
	c.CacheTokens = -1
}

// BenchmarkCold compares the check of a token that was never seen before, with
// a known key, to its bare signature check. The ratio is what counts.
func BenchmarkCold(b *testing.B) {
	v := newLocal(b, cold)
	for _, key := range []*signingKey{v.key, v.eddsa} {
		token := key.mint(b, benchClaims())
		dot := strings.LastIndexByte(token, '.')
		signature := decode64(b, token[dot+1:])
		bare := func() bool {
			return ed25519.Verify(key.private.Public().(ed25519.PublicKey), []byte(token[:dot]), signature)
		}
		if key.alg == jws.ES256 {
			der := asn1(signature)
			public := key.private.Public().(*ecdsa.PublicKey)
			bare = func() bool {
				digest := sha256.Sum256([]byte(token[:dot]))
				return ecdsa.VerifyASN1(public, digest[:], der)
			}
		}
		b.Run(string(key.alg)+"/bare", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !bare() {
					b.Fatal("bad signature")
				}
			}
		})
		b.Run(string(key.alg)+"/check", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Check(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
		// The two by turns in one loop, and medians: what else the machine does
		// hits both alike and counts little.
		b.Run(string(key.alg)+"/ratio", func(b *testing.B) {
			var bares, checks []time.Duration
			for b.Loop() {
				t0 := time.Now()
				_ = bare()
				t1 := time.Now()
				_, _ = v.Check(b.Context(), token)
				t2 := time.Now()
				bares, checks = append(bares, t1.Sub(t0)), append(checks, t2.Sub(t1))
			}
			slices.Sort(bares)
			slices.Sort(checks)
			mb, mc := bares[len(bares)/2], checks[len(checks)/2]
			b.ReportMetric(float64(mc)/float64(mb), "check/bare")
			b.ReportMetric(float64(mc-mb), "ns-over-bare")
		})
	}
}

// BenchmarkBeforeTheSignature is what a forged token costs.
func BenchmarkBeforeTheSignature(b *testing.B) {
	v := newLocal(b, silent)
	token := v.key.mint(b, benchClaims().with(claims{"iss": "https://other.example"}))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Check(b.Context(), token); err == nil {
			b.Fatal("accepted")
		}
	}
}
