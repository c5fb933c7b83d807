package counterfoil_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// forgetful records nothing of how long entries are to be kept.
type forgetful struct{ counterfoil.Store }

func (f forgetful) Feed() counterfoil.FeedLog { return forgetfulLog{f.Store.Feed()} }

type forgetfulLog struct{ counterfoil.FeedLog }

func (forgetfulLog) Retain(context.Context, time.Duration) (time.Duration, error) { return 0, nil }

// A session is revoked through one node while another, which is cut off, goes
// on minting for it. Whoever follows the first refuses all of that until the
// last token is dead, also a node that starts in between and reads what the
// store has kept.
func TestRevokedThroughAnotherNodeWhileThisOneIsCutOff(t *testing.T) {
	for name, forget := range map[string]bool{"entries are kept": false, "entries leave after 75 s": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, seal := newStore(t), newSeal()
				through := func(s counterfoil.Store) counterfoil.Store {
					if forget {
						return forgetful{s}
					}
					return s
				}
				withSeal := func(cfg *counterfoil.Config) { cfg.Seal = seal }
				c := openCutOff(t, through(store), withSeal)
				defer c.Close()
				// It needs no more than 75 s itself.
				other := open(t, through(store), withSeal)
				defer other.Close()
				if longest := other.MaxTokenLifetime(); !forget && longest != degraded {
					t.Errorf("the other node says that tokens live %s at most", longest)
				}
				g := signIn(t, c.Authority, "alice")
				time.Sleep(time.Second)
				g2 := refresh(t, c.Authority, g)
				g2.SessionToken = g.SessionToken
				c.store.set(failing)
				if err := other.RevokeSession(t.Context(), g.Session.ID, counterfoil.Revoked); err != nil {
					t.Fatal(err)
				}
				following, err := other.Verifier("")
				if err != nil {
					t.Fatal(err)
				}
				verifiers := map[string]*verify.Verifier{"of the other node": following}
				accepted, minted := 0, 0
				for second := range int(degraded/time.Second) + 20 {
					if second == 200 { // the sweep, which leaves entries for a minute more, has been by
						late := open(t, through(store), func(cfg *counterfoil.Config) { cfg.Seal, cfg.Degraded = seal, degraded })
						defer late.Close()
						if verifiers["of a node that started late"], err = late.Verifier(""); err != nil {
							t.Fatal(err)
						}
					}
					if fresh, err := c.tryRefresh(g2); err == nil {
						minted++
						g2.AccessToken = fresh.AccessToken
					}
					for whose, v := range verifiers {
						if _, err := v.Check(t.Context(), g2.AccessToken); err == nil {
							if accepted++; !forget {
								t.Fatalf("%d s after the revocation the verifier %s takes a token of the session", second, whose)
							}
						}
					}
					time.Sleep(time.Second)
				}
				if minted < 200 {
					t.Errorf("%d tokens were minted: this test is about nothing", minted)
				}
				if forget && accepted == 0 {
					t.Error("without the retention nothing was accepted either: this test would see nothing")
				}
			})
		})
	}
}

// A node that was given less, or nothing, keeps entries for as long as the one
// that was given most, from the moment on at which that one has started.
func TestEveryNodeKeepsEntriesAsLongAsTheLongest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, seal := newStore(t), newSeal()
		first := open(t, store, func(cfg *counterfoil.Config) { cfg.Seal = seal })
		defer first.Close()
		g := signIn(t, first, "alice")
		later := open(t, store, func(cfg *counterfoil.Config) { cfg.Seal, cfg.Degraded = seal, degraded })
		defer later.Close()
		if err := first.RevokeSession(t.Context(), g.Session.ID, counterfoil.Revoked); err != nil {
			t.Fatal(err)
		}
		log, err := store.Feed().Read(t.Context(), 0, 100)
		if err != nil || len(log) != 1 {
			t.Fatalf("%v, %v", log, err)
		}
		if kept := time.Until(log[0].Until); kept < degraded+15*time.Second || kept > degraded+17*time.Second {
			t.Errorf("the entry is kept for %s", kept)
		}
		time.Sleep(time.Second)
		if longest := first.MaxTokenLifetime(); longest != degraded {
			t.Errorf("the first node says that tokens live %s at most", longest)
		}
	})
}
