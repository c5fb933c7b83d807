package counterfoil_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"log/slog"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/memstore"
)

// BenchmarkMint compares a whole refresh in memory (session read, claims,
// JSON, signature) with the bare signature that it cannot do without.
func BenchmarkMint(b *testing.B) {
	payload := make([]byte, 400)
	bare := map[string]func() error{}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	bare["ES256"] = func() error {
		sum := sha256.Sum256(payload)
		_, err := ecdsa.SignASN1(rand.Reader, ecKey, sum[:])
		return err
	}
	bare["EdDSA"] = func() error {
		ed25519.Sign(edKey, payload)
		return nil
	}
	for _, alg := range []string{"ES256", "EdDSA"} {
		b.Run(alg+"/bare", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := bare[alg](); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(alg+"/refresh", func(b *testing.B) {
			cfg := baseConfig()
			cfg.Algorithm = alg
			cfg.Logger = slog.New(slog.DiscardHandler)
			a, err := counterfoil.New(b.Context(), memstore.New(), cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer a.Close()
			g, err := a.StartSession(b.Context(), counterfoil.SignIn{Subject: "alice", Methods: []string{"pwd"}})
			if err != nil {
				b.Fatal(err)
			}
			token := g.SessionToken.Reveal()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Refresh(b.Context(), token, counterfoil.RefreshRequest{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
