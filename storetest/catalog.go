package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

func (e *env) ring() counterfoil.KeyRing {
	e.t.Helper()
	ring, err := e.catalog.Keys(e.ctx)
	e.must("Keys", err)
	return ring
}

func (e *env) key(id string, state counterfoil.KeyState) counterfoil.KeyRecord {
	return counterfoil.KeyRecord{
		ID: id, Algorithm: "ES256", State: state, CreatedAt: e.clock.now(),
		Public: []byte{0, 1, 2, 0xff, 0}, Sealed: []byte("\x00sealed'\xff"),
	}
}

func (e *env) addKey(id string, state counterfoil.KeyState) {
	e.t.Helper()
	_, _, err := e.catalog.UpdateKeys(e.ctx, retain, func(r *counterfoil.KeyRing) error {
		r.Keys = append(r.Keys, e.key(id, state))
		return nil
	})
	e.must("UpdateKeys", err)
}

func (e *env) revokeKey(id string) []counterfoil.Revocation {
	e.t.Helper()
	_, revocations, err := e.catalog.UpdateKeys(e.ctx, retain, func(r *counterfoil.KeyRing) error {
		for i := range r.Keys {
			if r.Keys[i].ID == id {
				r.Keys[i].State, r.Keys[i].Sealed = counterfoil.KeyRevoked, nil
			}
		}
		return nil
	})
	e.must("UpdateKeys", err)
	return revocations
}

func sameRing(t *testing.T, what string, got, want counterfoil.KeyRing) {
	t.Helper()
	if got.Version != want.Version || len(got.Keys) != len(want.Keys) {
		t.Errorf("%s: got version %d with %d keys, want %d with %d", what, got.Version, len(got.Keys), want.Version, len(want.Keys))
		return
	}
	for _, w := range want.Keys {
		i := slices.IndexFunc(got.Keys, func(k counterfoil.KeyRecord) bool { return k.ID == w.ID })
		if i < 0 {
			t.Errorf("%s: key %s is missing", what, w.ID)
			continue
		}
		g := got.Keys[i]
		if g.Algorithm != w.Algorithm || g.State != w.State || string(g.Public) != string(w.Public) || string(g.Sealed) != string(w.Sealed) {
			t.Errorf("%s: got key %+v, want %+v", what, g, w)
		}
		sameTime(t, what+": CreatedAt", g.CreatedAt, w.CreatedAt)
		sameTime(t, what+": Until", g.Until, w.Until)
	}
}

func (e *env) apiKey(name string) counterfoil.APIKey {
	return counterfoil.APIKey{
		ID: opaque.NewID(), Name: name, ClientID: "default", Scopes: []string{"verify", "sessions"},
		CreatedAt: e.clock.now(), SecretHash: randomHash(),
	}
}

func sameAPIKey(t *testing.T, what string, got, want counterfoil.APIKey) {
	t.Helper()
	sameText(t, what+": ID", got.ID, want.ID)
	sameText(t, what+": Name", got.Name, want.Name)
	sameText(t, what+": ClientID", got.ClientID, want.ClientID)
	sameList(t, what+": Scopes", got.Scopes, want.Scopes)
	if got.SecretHash != want.SecretHash {
		t.Errorf("%s: SecretHash: got %x, want %x", what, got.SecretHash, want.SecretHash)
	}
	sameTime(t, what+": CreatedAt", got.CreatedAt, want.CreatedAt)
	for name, at := range map[string][2]time.Time{
		"ExpiresAt": {got.ExpiresAt, want.ExpiresAt}, "LastUsedAt": {got.LastUsedAt, want.LastUsedAt}, "RevokedAt": {got.RevokedAt, want.RevokedAt},
	} {
		sameTime(t, what+": "+name, at[0], at[1])
		if at[0].IsZero() != at[1].IsZero() {
			t.Errorf("%s: %s: got %s, want %s: the zero time has a meaning", what, name, at[0], at[1])
		}
	}
}

var catalogDuties = []duty{
	{"The ring is empty, version 0, before the first key", func(t *testing.T, e *env) {
		sameRing(t, "Keys", e.ring(), counterfoil.KeyRing{})
	}},
	{"UpdateKeys keeps what fn makes and raises the version by one", func(t *testing.T, e *env) {
		want := counterfoil.KeyRing{Version: 1, Keys: []counterfoil.KeyRecord{e.key("a'", counterfoil.KeyActive), e.key("b", counterfoil.KeyNext)}}
		got, revocations, err := e.catalog.UpdateKeys(e.ctx, retain, func(r *counterfoil.KeyRing) error {
			r.Keys = slices.Clone(want.Keys)
			r.Version = 77 // the store counts
			return nil
		})
		e.must("UpdateKeys", err)
		sameRing(t, "returned", got, want)
		sameRing(t, "Keys", e.ring(), want)

		got, more, err := e.catalog.UpdateKeys(e.ctx, retain, func(r *counterfoil.KeyRing) error {
			sameRing(t, "what fn sees", *r, want)
			i := slices.IndexFunc(r.Keys, func(k counterfoil.KeyRecord) bool { return k.ID == "b" })
			r.Keys = r.Keys[i : i+1]
			r.Keys[0].State, r.Keys[0].Until = counterfoil.KeyRetiring, e.clock.now().Add(time.Hour)
			return nil
		})
		e.must("UpdateKeys", err)
		want.Version, want.Keys = 2, want.Keys[1:]
		want.Keys[0].State, want.Keys[0].Until = counterfoil.KeyRetiring, e.clock.now().Add(time.Hour)
		sameRing(t, "returned", got, want)
		sameRing(t, "Keys", e.ring(), want)
		e.wantLogged(0, nil)
		if len(revocations)+len(more) != 0 {
			t.Errorf("got entries %q, want none: no key was revoked", brief(append(revocations, more...)))
		}
	}},
	{"UpdateKeys returns fn's error as it is and writes nothing", func(t *testing.T, e *env) {
		e.addKey("a", counterfoil.KeyActive)
		want := e.ring()
		mine := errors.New("mine")
		_, _, err := e.catalog.UpdateKeys(e.ctx, retain, func(r *counterfoil.KeyRing) error {
			r.Keys[0].State = counterfoil.KeyRevoked
			return mine
		})
		e.wantErr("UpdateKeys", err, mine)
		sameRing(t, "Keys", e.ring(), want)
		e.wantLogged(0, nil)
	}},
	{"A key that is turned to revoked gets one entry", func(t *testing.T, e *env) {
		e.addKey("a", counterfoil.KeyActive)
		e.addKey("b", counterfoil.KeyNext)
		revocations := e.revokeKey("a")
		if len(revocations) != 1 || revocations[0].Kind != revoked.Key || revocations[0].ID != "a" {
			t.Errorf("got %q, want one entry of kind k for the key", brief(revocations))
		}
		e.wantLogged(0, revocations)
		if again := e.revokeKey("a"); len(again) != 0 {
			t.Errorf("got %q for a key that was revoked before", brief(again))
		}
		e.addKey("c", counterfoil.KeyNext)
		e.wantLogged(0, revocations)
	}},
	{"The ring shares no memory with callers", func(t *testing.T, e *env) {
		e.addKey("a", counterfoil.KeyActive)
		want := e.ring()
		spoiled := e.ring()
		if len(spoiled.Keys) != 1 {
			t.Fatalf("got %d keys, want one", len(spoiled.Keys))
		}
		spoiled.Keys[0].Public[0], spoiled.Keys[0].ID = 99, "x"
		sameRing(t, "Keys", e.ring(), want)
	}},
	{"Parallel changes of the ring lose nothing", func(t *testing.T, e *env) {
		parallel(times(writers, func(i int) {
			var last int64
			for j := range writes {
				ring, _, err := e.catalog.UpdateKeys(e.ctx, retain, func(r *counterfoil.KeyRing) error {
					r.Keys = append(r.Keys, e.key(fmt.Sprintf("%d-%d", i, j), counterfoil.KeyNext))
					return nil
				})
				if err != nil {
					t.Errorf("UpdateKeys: %v", err)
					return
				}
				if ring.Version <= last {
					t.Errorf("version %d came after %d", ring.Version, last)
				}
				last = ring.Version
			}
		})...)
		if ring := e.ring(); ring.Version != writers*writes || len(ring.Keys) != writers*writes {
			t.Errorf("got version %d with %d keys, want %d of both", ring.Version, len(ring.Keys), writers*writes)
		}
	}},
	{"Of two first keys one wins", func(t *testing.T, e *env) {
		got := make([]counterfoil.KeyRing, 4)
		parallel(times(len(got), func(i int) {
			var err error
			got[i], _, err = e.catalog.UpdateKeys(e.ctx, retain, func(r *counterfoil.KeyRing) error {
				if len(r.Keys) == 0 {
					r.Keys = append(r.Keys, e.key(fmt.Sprintf("of node %d", i), counterfoil.KeyActive))
				}
				return nil
			})
			if err != nil {
				t.Errorf("UpdateKeys: %v", err)
			}
		})...)
		ring := e.ring()
		if len(ring.Keys) != 1 {
			t.Fatalf("got %d keys, want one", len(ring.Keys))
		}
		for _, g := range got {
			if len(g.Keys) != 1 || g.Keys[0].ID != ring.Keys[0].ID {
				t.Errorf("a node went on with %d keys, want the winner's only", len(g.Keys))
			}
		}
	}},
	{"Parallel revocations of a key give one entry", func(t *testing.T, e *env) {
		e.addKey("a", counterfoil.KeyActive)
		var reported record
		parallel(times(4, func(int) {
			_, revocations, err := e.catalog.UpdateKeys(e.ctx, retain, func(r *counterfoil.KeyRing) error {
				r.Keys[0].State = counterfoil.KeyRevoked
				return nil
			})
			if err != nil {
				t.Errorf("UpdateKeys: %v", err)
			}
			reported.add(revocations...)
		})...)
		if len(reported.all) != 1 {
			t.Errorf("got %q, want one entry", brief(reported.all))
		}
		e.wantLogged(0, reported.all)
	}},

	{"API keys are kept as given", func(t *testing.T, e *env) {
		plain, full := e.apiKey("plain"), e.apiKey("O'Brien \u2028 🎫")
		full.Scopes = []string{"a'b", "c,d", ""}
		full.ExpiresAt, full.LastUsedAt = e.clock.now().Add(time.Hour), e.clock.now().Add(time.Minute)
		full.RevokedAt = e.clock.now().Add(2 * time.Minute)
		for _, k := range []counterfoil.APIKey{plain, full} {
			e.must("CreateAPIKey", e.catalog.CreateAPIKey(e.ctx, k))
			got, err := e.catalog.APIKey(e.ctx, k.ID)
			e.must("APIKey", err)
			sameAPIKey(t, "APIKey", got, k)
		}
		if err := e.catalog.CreateAPIKey(e.ctx, plain); err == nil {
			t.Error("CreateAPIKey of a taken ID: got no error")
		}
	}},
	{"An unknown API key is ErrNotFound", func(t *testing.T, e *env) {
		_, err := e.catalog.APIKey(e.ctx, opaque.NewID())
		e.wantErr("APIKey", err, counterfoil.ErrNotFound)
		_, err = e.catalog.UpdateAPIKey(e.ctx, opaque.NewID(), func(*counterfoil.APIKey) error {
			t.Error("fn was called for a key that is not there")
			return nil
		})
		e.wantErr("UpdateAPIKey", err, counterfoil.ErrNotFound)
	}},
	{"UpdateAPIKey changes one key, and returns fn's error as it is", func(t *testing.T, e *env) {
		k, other := e.apiKey("one"), e.apiKey("other")
		e.must("CreateAPIKey", e.catalog.CreateAPIKey(e.ctx, k))
		e.must("CreateAPIKey", e.catalog.CreateAPIKey(e.ctx, other))
		want := k
		want.RevokedAt, want.Name = e.clock.now(), "renamed"
		got, err := e.catalog.UpdateAPIKey(e.ctx, k.ID, func(row *counterfoil.APIKey) error {
			sameAPIKey(t, "what fn sees", *row, k)
			row.RevokedAt, row.Name = want.RevokedAt, want.Name
			return nil
		})
		e.must("UpdateAPIKey", err)
		sameAPIKey(t, "returned", got, want)
		mine := errors.New("mine")
		_, err = e.catalog.UpdateAPIKey(e.ctx, k.ID, func(row *counterfoil.APIKey) error {
			row.Name = "x"
			return mine
		})
		e.wantErr("UpdateAPIKey", err, mine)
		got, err = e.catalog.APIKey(e.ctx, k.ID)
		e.must("APIKey", err)
		sameAPIKey(t, "APIKey", got, want)
		got, err = e.catalog.APIKey(e.ctx, other.ID)
		e.must("APIKey", err)
		sameAPIKey(t, "the other key", got, other)
	}},
	{"Parallel updates of an API key lose nothing", func(t *testing.T, e *env) {
		k := e.apiKey("")
		e.must("CreateAPIKey", e.catalog.CreateAPIKey(e.ctx, k))
		parallel(times(writers, func(int) {
			for range writes {
				_, err := e.catalog.UpdateAPIKey(e.ctx, k.ID, func(row *counterfoil.APIKey) error {
					row.Name += "x"
					return nil
				})
				if err != nil {
					t.Errorf("UpdateAPIKey: %v", err)
				}
			}
		})...)
		got, err := e.catalog.APIKey(e.ctx, k.ID)
		e.must("APIKey", err)
		if len(got.Name) != writers*writes {
			t.Errorf("%d updates added a letter each, and there are %d: updates were lost", writers*writes, len(got.Name))
		}
	}},
	{"APIKeys lists all, newest first", func(t *testing.T, e *env) {
		var want []string
		for range 5 {
			k := e.apiKey("key")
			k.CreatedAt = e.clock.now()
			e.must("CreateAPIKey", e.catalog.CreateAPIKey(e.ctx, k))
			want = append([]string{k.ID}, want...)
			e.clock.move(time.Second)
		}
		all, err := e.catalog.APIKeys(e.ctx)
		e.must("APIKeys", err)
		var got []string
		for _, k := range all {
			got = append(got, k.ID)
		}
		sameList(t, "APIKeys", got, want)
	}},
}
