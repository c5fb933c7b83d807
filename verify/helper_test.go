package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

const (
	testIssuer   = "https://app.example"
	testAudience = "orders"
)

// start is when the tests' clocks begin.
var start = time.Unix(1763770000, 0)

type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

func (c *fakeClock) advance(d time.Duration) { c.set(c.Now().Add(d)) }

// signingKey is a key with which a test plays the authority.
type signingKey struct {
	kid     string
	alg     jws.Alg
	private crypto.Signer
	public  *jws.PublicKey
}

func newKey(t testing.TB, kid string, alg jws.Alg) *signingKey {
	t.Helper()
	k := &signingKey{kid: kid, alg: alg}
	var err error
	switch alg {
	case jws.ES256:
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jws.EdDSA:
		_, k.private, err = ed25519.GenerateKey(rand.Reader)
	default:
		t.Fatal(alg)
	}
	if err == nil {
		k.public, err = jws.NewPublicKey(kid, alg, k.private.Public())
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sign makes a token of any payload and typ.
func (k *signingKey) sign(t testing.TB, typ, payload string) string {
	t.Helper()
	s, err := jws.NewSigner(k.kid, k.alg, typ, k.private)
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

type claims map[string]any

// goodClaims are those of a token minted at the given time for 60 s.
func goodClaims(at time.Time) claims {
	return claims{
		"iss": testIssuer, "sub": "user-1", "aud": testAudience, "client_id": "default",
		"sid": "4fzyo82mvyr9z0KfJ2W8QhpD", "iat": at.Unix(), "exp": at.Unix() + 60, "jti": "t1",
		"auth_time": at.Unix() - 120, "amr": []string{"pwd"}, "epoch": 7,
	}
}

// with returns a changed copy; a nil value leaves the claim out.
func (c claims) with(changes claims) claims {
	c = maps.Clone(c)
	for name, value := range changes {
		if value == nil {
			delete(c, name)
		} else {
			c[name] = value
		}
	}
	return c
}

func (k *signingKey) mint(t testing.TB, c claims) string {
	t.Helper()
	payload, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return k.sign(t, TokenType, string(payload))
}

// local is a verifier in process with one key of each algorithm.
type local struct {
	*Verifier
	clock *fakeClock
	table *revoked.Table
	key   *signingKey
	eddsa *signingKey
}

func newLocal(t testing.TB, change func(*Config, *Local)) *local {
	t.Helper()
	l := &local{clock: &fakeClock{now: start}}
	l.table = revoked.NewTable(l.clock.Now)
	l.key, l.eddsa = newKey(t, "k1", jws.ES256), newKey(t, "k2", jws.EdDSA)
	keys := map[string]*jws.PublicKey{"k1": l.key.public, "k2": l.eddsa.public}
	cfg := Config{Issuer: testIssuer, Audience: testAudience, Clock: l.clock.Now, Logger: quiet}
	loc := Local{
		Key:              func(kid string) (*jws.PublicKey, bool) { k, ok := keys[kid]; return k, ok },
		Revocations:      l.table,
		MaxTokenLifetime: func() time.Duration { return 5 * time.Minute },
	}
	if change != nil {
		change(&cfg, &loc)
	}
	v, err := NewLocal(cfg, loc)
	if err != nil {
		t.Fatal(err)
	}
	l.Verifier = v
	return l
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}))

func decode64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// asn1 is the DER form of a signature r‖s.
func asn1(signature []byte) []byte {
	integer := func(b []byte) []byte {
		b = bytes.TrimLeft(b, "\x00")
		if b[0] >= 0x80 {
			b = append([]byte{0}, b...)
		}
		return append([]byte{2, byte(len(b))}, b...)
	}
	body := append(integer(signature[:32]), integer(signature[32:])...)
	return append([]byte{0x30, byte(len(body))}, body...)
}
