package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
)

func (e *env) ceremony(challenge string) directory.Ceremony {
	return directory.Ceremony{
		Challenge: challenge, Kind: "add", Browser: randomHash(), UserID: "user", Email: "Ann@Example.com", SessionID: "session",
		ExpiresAt: e.clock.now().Add(5 * time.Minute),
	}
}

func (e *env) passkey(id string) directory.Passkey {
	return directory.Passkey{
		ID: id, PublicKey: []byte{0, 1, 0xff, '"'}, Name: "Ann's \"phone\" 📱", Transports: []string{"hybrid", "internal"},
		SignCount: 1<<32 - 1, BackupEligible: true, BackedUp: true, CreatedAt: e.clock.now(), LastUsedAt: e.clock.now().Add(time.Second),
	}
}

// samePasskeys compares every field; the order counts.
func samePasskeys(t *testing.T, what string, got, want []directory.Passkey) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: got %d passkeys, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		g, w := got[i], want[i]
		sameTime(t, what+": CreatedAt", g.CreatedAt, w.CreatedAt)
		sameTime(t, what+": LastUsedAt", g.LastUsedAt, w.LastUsedAt)
		if g.LastUsedAt.IsZero() != w.LastUsedAt.IsZero() {
			t.Errorf("%s: LastUsedAt: got %s, want %s", what, g.LastUsedAt, w.LastUsedAt)
		}
		g.CreatedAt, g.LastUsedAt = w.CreatedAt, w.LastUsedAt
		if !reflect.DeepEqual(g, w) {
			t.Errorf("%s: got %+v, want %+v", what, g, w)
		}
	}
}

var ceremonyDuties = []duty{
	{"A ceremony is taken once, as it was added", func(t *testing.T, e *env) {
		full, bare := e.ceremony("full'; --"), e.ceremony("bare")
		bare.UserID, bare.Email, bare.SessionID = "", "", ""
		e.must("AddCeremony", e.Users.AddCeremony(e.ctx, full))
		e.must("AddCeremony", e.Users.AddCeremony(e.ctx, bare))
		for _, want := range []directory.Ceremony{full, bare} {
			got, err := e.Users.TakeCeremony(e.ctx, want.Challenge)
			e.must("TakeCeremony", err)
			sameTime(t, "ExpiresAt", got.ExpiresAt, want.ExpiresAt)
			got.ExpiresAt = want.ExpiresAt
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			_, err = e.Users.TakeCeremony(e.ctx, want.Challenge)
			e.wantErr("TakeCeremony once more", err, counterfoil.ErrNotFound)
		}
		_, err := e.Users.TakeCeremony(e.ctx, "FULL'; --")
		e.wantErr("TakeCeremony of another", err, counterfoil.ErrNotFound)
	}},
	{"A challenge that is taken is an error and changes nothing", func(t *testing.T, e *env) {
		first := e.ceremony("a")
		e.must("AddCeremony", e.Users.AddCeremony(e.ctx, first))
		if err := e.Users.AddCeremony(e.ctx, e.ceremony("a")); err == nil {
			t.Error("got no error")
		}
		got, err := e.Users.TakeCeremony(e.ctx, "a")
		e.must("TakeCeremony", err)
		if got.Browser != first.Browser {
			t.Error("the first ceremony was overwritten")
		}
	}},
	{"A ceremony that is past cannot be taken", func(t *testing.T, e *env) {
		e.must("AddCeremony", e.Users.AddCeremony(e.ctx, e.ceremony("a")))
		e.must("AddCeremony", e.Users.AddCeremony(e.ctx, e.ceremony("b")))
		e.clock.move(5*time.Minute - time.Second)
		_, err := e.Users.TakeCeremony(e.ctx, "a")
		e.must("TakeCeremony in time", err)
		e.clock.move(time.Second)
		_, err = e.Users.TakeCeremony(e.ctx, "b")
		e.wantErr("TakeCeremony at its end", err, counterfoil.ErrNotFound)
	}},
	{"Of parallel takes one gets the ceremony", func(t *testing.T, e *env) {
		e.rounds(func(name string) {
			e.must("AddCeremony", e.Users.AddCeremony(e.ctx, e.ceremony(name)))
			var won atomic.Int32
			parallel(times(4, func(int) {
				switch _, err := e.Users.TakeCeremony(e.ctx, name); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, counterfoil.ErrNotFound):
					t.Errorf("TakeCeremony: got error %v, want %v", err, counterfoil.ErrNotFound)
				}
			})...)
			if won.Load() != 1 {
				t.Errorf("%d calls got one ceremony", won.Load())
			}
		})
	}},
	{"A user's passkeys are kept as given, in their order", func(t *testing.T, e *env) {
		u := e.user("ann@example.com")
		unused := e.passkey("unused")
		unused.Transports, unused.SignCount, unused.LastUsedAt, unused.BackedUp, unused.BackupEligible = nil, 0, time.Time{}, false, false
		u.Password, u.Passkeys = "", []directory.Passkey{e.passkey("z"), unused, e.passkey("a")}
		e.must("Create", e.Users.Create(e.ctx, u))
		samePasskeys(t, "User", e.readUser(u.ID).Passkeys, u.Passkeys)
		byEmail, err := e.Users.ByEmail(e.ctx, u.EmailKey)
		e.must("ByEmail", err)
		samePasskeys(t, "ByEmail", byEmail.Passkeys, u.Passkeys)
		samePasskeys(t, "List", e.listUsers(10)[0].Passkeys, u.Passkeys)
		want := []directory.Passkey{e.passkey("a"), e.passkey("new")}
		updated, _, err := e.Users.Update(e.ctx, u.ID, func(u *directory.User) (*counterfoil.Advance, error) {
			u.Passkeys = []directory.Passkey{e.passkey("a"), e.passkey("new")}
			return nil, nil
		})
		e.must("Update", err)
		samePasskeys(t, "returned", updated.Passkeys, want)
		updated.Passkeys[0].Name, updated.Passkeys[0].PublicKey[0], updated.Passkeys[0].Transports[0] = "x", 9, "x"
		samePasskeys(t, "after Update", e.readUser(u.ID).Passkeys, want)
		mine := errors.New("mine")
		_, _, err = e.Users.Update(e.ctx, u.ID, func(u *directory.User) (*counterfoil.Advance, error) {
			u.Passkeys[0].Name, u.Passkeys[0].PublicKey[0], u.Passkeys[0].Transports[0] = "x", 9, "x"
			return nil, mine
		})
		e.wantErr("Update", err, mine)
		samePasskeys(t, "after a failed Update", e.readUser(u.ID).Passkeys, want)
		_, _, err = e.Users.Update(e.ctx, u.ID, func(u *directory.User) (*counterfoil.Advance, error) {
			u.Passkeys = nil
			return nil, nil
		})
		e.must("Update", err)
		samePasskeys(t, "after the last was removed", e.readUser(u.ID).Passkeys, nil)
	}},
	{"Parallel changes of passkeys are all kept", func(t *testing.T, e *env) {
		ann := e.create("ann@example.com")
		parallel(times(writers, func(i int) {
			for j := range writes {
				_, _, err := e.Users.Update(e.ctx, ann.ID, func(u *directory.User) (*counterfoil.Advance, error) {
					u.Passkeys = append(u.Passkeys, e.passkey(fmt.Sprint(i, "-", j)))
					return nil, nil
				})
				if err != nil {
					t.Errorf("Update: %v", err)
				}
			}
		})...)
		if got := len(e.readUser(ann.ID).Passkeys); got != writers*writes {
			t.Errorf("got %d passkeys, want %d: changes were lost", got, writers*writes)
		}
	}},
}
