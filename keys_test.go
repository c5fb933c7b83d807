package counterfoil_test

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/jwk"
	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/storetest/engine"
	"github.com/counterfoil/counterfoil/verify"
)

func kids(t *testing.T, a *counterfoil.Authority) []string {
	t.Helper()
	set, err := jwk.ParseSet(a.JWKS())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, k := range set.Keys {
		ids = append(ids, k.KID())
	}
	return ids
}

func kid(t *testing.T, g *counterfoil.Grant) string {
	t.Helper()
	m, err := jws.Parse(g.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	return m.Header.Kid
}

func TestActiveAndNextKeyArePublished(t *testing.T) { // SEC-72, SEC-75
	for _, alg := range []string{"ES256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			a := open(t, nil, func(c *counterfoil.Config) { c.Algorithm = alg })
			if n := len(kids(t, a)); n != 2 {
				t.Errorf("%d keys", n)
			}
			for _, private := range []string{`"d"`, `"p"`, `"k"`} {
				if strings.Contains(string(a.JWKS()), private) {
					t.Errorf("the JWKS holds %s", private)
				}
			}
			if _, err := check(t, a, signIn(t, a, "alice").AccessToken); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRotationRefusesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := authority(t)
		defer a.Close()
		before := kids(t, a)
		g := signIn(t, a, "alice")
		if err := a.RotateKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := check(t, a, g.AccessToken); err != nil {
			t.Errorf("a token of the retiring key: %v", err)
		}
		fresh := refresh(t, a, g)
		if _, err := check(t, a, fresh.AccessToken); err != nil || kid(t, fresh) != before[1] {
			t.Errorf("signed with %s, the next key was %s (%v)", kid(t, fresh), before[1], err)
		}
		if n := len(kids(t, a)); n != 3 {
			t.Errorf("%d keys are published, want active, next and retiring", n)
		}
		time.Sleep(15 * time.Minute)
		if err := a.RotateKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, kid := range kids(t, a) {
			if kid == before[0] {
				t.Error("the retired key is still published after its last token and ten minutes")
			}
		}
	})
}

func TestSEC73EmergencyRevocationOfAKey(t *testing.T) {
	a := authority(t)
	g := signIn(t, a, "alice")
	active := kids(t, a)[0]
	if err := a.RevokeKey(t.Context(), active); err != nil {
		t.Fatal(err)
	}
	_, err := check(t, a, g.AccessToken)
	wantErr(t, err, verify.ErrTokenInvalid)
	if _, err := check(t, a, refresh(t, a, g).AccessToken); err != nil {
		t.Errorf("one refresh mends it: %v", err)
	}
	if ids := kids(t, a); len(ids) != 2 || ids[0] == active || ids[1] == active {
		t.Errorf("published: %v", ids)
	}
	_, err = a.Exchange(t.Context(), g.AccessToken, counterfoil.ExchangeRequest{})
	wantErr(t, err, verify.ErrTokenInvalid)
	wantErr(t, a.RevokeKey(t.Context(), "nope"), counterfoil.ErrNotFound)
}

func TestAnotherNodesKeysAreTakenBeforeTheNextMint(t *testing.T) {
	store, seal := newStore(t), newSeal()
	use := func(c *counterfoil.Config) { c.Seal = seal }
	one, two := open(t, store, use), open(t, store, use)
	if a, b := kids(t, one), kids(t, two); a[0] != b[0] || a[1] != b[1] {
		t.Fatalf("two nodes, two key sets: %v %v", a, b)
	}
	g := signIn(t, one, "alice")
	revoked := kids(t, one)[0]
	if err := one.RevokeKey(t.Context(), revoked); err != nil {
		t.Fatal(err)
	}
	fresh := refresh(t, two, g)
	if _, err := check(t, two, fresh.AccessToken); err != nil || kid(t, fresh) == revoked {
		t.Errorf("node two signed with %s (%v)", kid(t, fresh), err)
	}
}

func TestSwitchingTheAlgorithmKeepsTokensInFlight(t *testing.T) {
	store, seal := newStore(t), newSeal()
	g := signIn(t, open(t, store, func(c *counterfoil.Config) { c.Seal = seal }), "alice")
	ed := open(t, store, func(c *counterfoil.Config) { c.Seal, c.Algorithm = seal, "EdDSA" })
	if _, err := check(t, ed, g.AccessToken); err != nil {
		t.Errorf("the ES256 token in flight: %v", err)
	}
	if _, err := check(t, ed, refresh(t, ed, g).AccessToken); err != nil {
		t.Error(err)
	}
}

func TestWrongSealRefusesToStartAndMakesNothing(t *testing.T) {
	db := engine.Open(t, time.Now)
	open(t, db.Store(t), nil).Close()
	store := db.Store(t)
	if err := store.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := store.Catalog().Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = counterfoil.New(t.Context(), db.Store(t), baseConfig()) // a new random seal
	wantErr(t, err, counterfoil.ErrWrongSeal)
	cfg := baseConfig()
	cfg.Algorithm = "EdDSA" // would want new keys beside those it cannot open
	_, err = counterfoil.New(t.Context(), db.Store(t), cfg)
	wantErr(t, err, counterfoil.ErrWrongSeal)
	after, err := store.Catalog().Keys(t.Context())
	if err != nil || after.Version != before.Version || len(after.Keys) != len(before.Keys) {
		t.Errorf("the key ring changed: %d → %d, %v", before.Version, after.Version, err)
	}
}

func TestSealSecretsCanBeReplaced(t *testing.T) {
	db := engine.Open(t, time.Now)
	var older, newer [32]byte
	rand.Read(older[:])
	rand.Read(newer[:])
	open(t, db.Store(t), func(c *counterfoil.Config) { c.Seal = counterfoil.SealSecrets(older[:]) }).Close()
	both := open(t, db.Store(t), func(c *counterfoil.Config) { c.Seal = counterfoil.SealSecrets(newer[:], older[:]) })
	signIn(t, both, "alice")
}

func TestSealFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counterfoil.seal")
	db := engine.Open(t, time.Now)
	use := func(c *counterfoil.Config) { c.Seal = counterfoil.SealFile(path) }
	open(t, db.Store(t), use).Close()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	open(t, db.Store(t), use).Close()
	lost := baseConfig()
	lost.Seal = counterfoil.SealFile(path + ".lost")
	if _, err := counterfoil.New(t.Context(), db.Store(t), lost); !errors.Is(err, counterfoil.ErrWrongSeal) {
		t.Errorf("a lost seal file: %v", err)
	}
	if _, err := os.Stat(path + ".lost"); err == nil {
		t.Error("a new seal was made beside keys that another one sealed")
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	cfg := baseConfig()
	use(&cfg)
	if _, err := counterfoil.New(t.Context(), db.Store(t), cfg); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a seal file that others can read: %v", err)
	}
	if err := os.WriteFile(path, []byte("too short"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Chmod(path, 0o600)
	if _, err := counterfoil.New(t.Context(), db.Store(t), cfg); err == nil || !strings.Contains(err.Error(), "32 bytes") {
		t.Errorf("garbage in the seal file: %v", err)
	}
}

func TestSEC76KeysAtRestAreSealed(t *testing.T) {
	store := newStore(t)
	open(t, store, nil)
	ring, err := store.Catalog().Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range ring.Keys {
		if len(k.Sealed) == 0 || strings.Contains(string(k.Sealed), "\x2a\x86\x48\xce\x3d\x02\x01") { // id-ecPublicKey, in every PKCS #8 of ours
			t.Errorf("key %s is kept in the clear", k.ID)
		}
	}
}

// skewed is a store whose clock is off.
type skewed struct {
	counterfoil.Store
	counterfoil.SessionStore
	by time.Duration
}

func (s skewed) Sessions() counterfoil.SessionStore { return s }
func (s skewed) Now(ctx context.Context) (time.Time, error) {
	at, err := s.Store.Now(ctx)
	return at.Add(s.by), err
}
func (s skewed) Snapshot(ctx context.Context, id string) (counterfoil.Snapshot, error) {
	snap, err := s.SessionStore.Snapshot(ctx, id)
	snap.Now = snap.Now.Add(s.by)
	return snap, err
}

func TestClockOffByMoreThanFiveSecondsDoesNotMint(t *testing.T) {
	for _, tt := range []struct {
		by time.Duration
		ok bool
	}{{4 * time.Second, true}, {-4 * time.Second, true}, {6 * time.Second, false}, {-6 * time.Second, false}, {time.Hour, false}, {-time.Hour, false}} {
		t.Run(tt.by.String(), func(t *testing.T) {
			mem, seal := newStore(t), newSeal()
			g := signIn(t, open(t, mem, func(c *counterfoil.Config) { c.Seal = seal }), "alice")
			a := open(t, skewed{mem, mem.Sessions(), tt.by}, func(c *counterfoil.Config) { c.Seal = seal })
			ready := a.Ready(t.Context())
			_, err := a.Refresh(t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{})
			if tt.ok {
				if ready != nil || err != nil {
					t.Errorf("%v, %v", ready, err)
				}
				return
			}
			for _, err := range []error{ready, err} {
				if !errors.Is(err, verify.ErrUnavailable) || !errors.Is(err, counterfoil.ErrClockSkew) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

func TestBadConfigurationNamesTheField(t *testing.T) {
	for _, tt := range []struct {
		field  string
		change func(*counterfoil.Config)
	}{
		{"Issuer", func(c *counterfoil.Config) { c.Issuer = "" }},
		{"Issuer", func(c *counterfoil.Config) { c.Issuer = "http://app.example" }}, // SEC-116
		{"Issuer", func(c *counterfoil.Config) { c.Issuer = "https://app.example/" }},
		{"Issuer", func(c *counterfoil.Config) { c.Issuer = "https://app.example?x" }},
		{"Audiences", func(c *counterfoil.Config) { c.Audiences = nil }},
		{"Audiences[1]", func(c *counterfoil.Config) { c.Audiences[1] = "a b" }},
		{"Algorithm", func(c *counterfoil.Config) { c.Algorithm = "HS256" }},
		{"TokenLifetime", func(c *counterfoil.Config) { c.TokenLifetime = time.Hour }},
		{"TokenLifetime", func(c *counterfoil.Config) { c.TokenLifetime = time.Second }},
		{"ClientID", func(c *counterfoil.Config) { c.ClientID = "Ä" }},
		{"Lifetimes", func(c *counterfoil.Config) { c.Lifetimes.Absolute = time.Hour }},
		{"Seal", func(c *counterfoil.Config) { c.Seal = counterfoil.Seal{} }},
		{"Seal", func(c *counterfoil.Config) { c.Seal = counterfoil.SealText("AAAA") }},
	} {
		cfg := baseConfig()
		tt.change(&cfg)
		_, err := counterfoil.New(t.Context(), newStore(t), cfg)
		var field *counterfoil.FieldError
		if !errors.As(err, &field) || field.Field != tt.field {
			t.Errorf("got %v, want an error of field %s", err, tt.field)
		}
	}
}

func TestNodesOfTwoAlgorithmsDoNotTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, seal := newStore(t), newSeal()
		es := open(t, store, func(c *counterfoil.Config) { c.Seal = seal })
		defer es.Close()
		ed := open(t, store, func(c *counterfoil.Config) { c.Seal, c.Algorithm = seal, "EdDSA" })
		defer ed.Close()
		g := signIn(t, ed, "alice")
		time.Sleep(5 * time.Minute) // many sweeps and polls of both
		synctest.Wait()
		ring, err := store.Catalog().Keys(t.Context())
		if err != nil || ring.Version > 2 || len(ring.Keys) != 4 {
			t.Errorf("version %d, %d keys, %v", ring.Version, len(ring.Keys), err)
		}
		// The node of the former algorithm signs with what is active now.
		for _, a := range []*counterfoil.Authority{es, ed} {
			fresh := refresh(t, a, g)
			for _, v := range []*counterfoil.Authority{es, ed} {
				if _, err := check(t, v, fresh.AccessToken); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

func TestTheKeySetIsBounded(t *testing.T) {
	a := authority(t)
	var err error
	for range 100 {
		if err = a.RotateKeys(t.Context()); err != nil {
			break
		}
	}
	wantErr(t, err, counterfoil.ErrConflict)
	if n := len(kids(t, a)); n > 64 {
		t.Errorf("%d keys are published", n)
	}
}
