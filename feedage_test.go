package counterfoil_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// SEC-38 in process: a node that no longer hears the log asks the store where a
// route bounds the age of what is known.
func TestSEC38MaxFeedAgeOfANodeThatHearsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		faulty := &faultyFeed{Store: store}
		seal := newSeal()
		a := open(t, faulty, func(c *counterfoil.Config) { c.Seal = seal })
		other := open(t, store, func(c *counterfoil.Config) { c.Seal = seal })
		g := signIn(t, other, "alice")
		v, err := a.Verifier("")
		if err != nil {
			t.Fatal(err)
		}
		strict, plain := v.Checker(verify.MaxFeedAge(time.Second)), v.Checker()
		if _, err := strict(t.Context(), g.AccessToken); err != nil {
			t.Fatal(err)
		}
		if s := v.Stats(); !s.FeedAgeKnown || s.FeedAge > 40*time.Millisecond || s.FeedChecks != 0 {
			t.Errorf("%+v", s)
		}
		faulty.set(func() { faulty.down = true })
		if err := other.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second + 50*time.Millisecond)
		if _, err := plain(t.Context(), g.AccessToken); err != nil {
			t.Errorf("the default route: %v", err)
		}
		_, err = strict(t.Context(), g.AccessToken)
		wantErr(t, err, verify.ErrTokenRevoked)
		if s := v.Stats(); s.FeedAge < time.Second || s.FeedChecks != 1 {
			t.Errorf("%+v", s)
		}
	})
}
