package counterfoil_test

import (
	"errors"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/verify"
)

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, newStore(t), nil) // one node: each counts for itself
		defer a.Close()
		ctx := t.Context()
		ok, refused := func(n uint64) counterfoil.Outcomes { return counterfoil.Outcomes{OK: n} }, func(n, no uint64) counterfoil.Outcomes {
			return counterfoil.Outcomes{OK: n, Refused: no}
		}
		ann, bob := signIn(t, a, "ann"), signIn(t, a, "bob")
		if _, err := a.StartSession(ctx, counterfoil.SignIn{}); err == nil {
			t.Fatal("a session of nobody")
		}
		refresh := func(g *counterfoil.Grant) {
			_, err := a.Refresh(ctx, g.SessionToken.Reveal(), counterfoil.RefreshRequest{})
			if ended := (*counterfoil.EndedError)(nil); err != nil && !errors.As(err, &ended) {
				t.Fatal(err)
			}
		}
		refresh(ann)
		refresh(ann)
		v, err := a.Verifier("")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Check(ctx, bob.AccessToken, verify.Live()); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{
			a.RevokeSession(ctx, ann.Session.ID, counterfoil.SignedOut), a.RightsChanged(ctx, "bob"), a.RightsChanged(ctx, "bob"),
			a.RevokeSubject(ctx, "bob", counterfoil.SignedOut),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		refresh(ann)
		s := a.Stats()
		if s.SignIns != refused(2, 1) || s.Refreshes != refused(2, 1) || s.LiveChecks != ok(1) || s.Mints != 4 {
			t.Errorf("%+v", s)
		}
		if s.SessionsRevoked != 1 || s.RightsChanged != 2 || s.SubjectsRevoked != 1 || s.KeysRevoked != 0 {
			t.Errorf("%+v", s)
		}
		if s.StoreErrors != 0 || s.FeedTimeline == 0 || s.FeedAge < 0 || s.FeedAge > time.Second || s.KeyVersion == 0 {
			t.Errorf("%+v", s)
		}

		// What waits is written within a second or so; the sweep runs each minute.
		time.Sleep(6 * time.Hour)
		cat := signIn(t, a, "cat")
		time.Sleep(6*time.Hour + 500*time.Millisecond) // between two writes
		refresh(cat)
		if s := a.Stats(); s.TouchesPending != 1 {
			t.Errorf("%d touches wait", s.TouchesPending)
		}
		time.Sleep(2 * time.Minute)
		if s := a.Stats(); s.TouchesPending != 0 || s.Touches != 1 || s.Sweeps.OK < 700 || s.EntriesPruned == 0 {
			t.Errorf("%+v", s)
		}
	})
}

// What verifiers report of themselves is bounded, whatever they send.
func TestStatsVerifierLag(t *testing.T) {
	a := open(t, newStore(t), nil) // one node: each counts for itself
	defer a.Close()
	for _, lag := range []string{"0", "12", "90000", "", "-1", "x", "1e3", "99999999999999999999", "86400001", " 5"} {
		r := httptest.NewRequest("GET", "/v1/revocations/clock", nil)
		r.Header.Set(feed.LagHeader, lag)
		w := httptest.NewRecorder()
		if a.ServeFeedClock(w, r); w.Code != 200 {
			t.Fatalf("%q: %d", lag, w.Code)
		}
	}
	d := a.Stats().VerifierLag
	total := uint64(0)
	for _, n := range d.Counts {
		total += n
	}
	if total != 3 || d.Counts[0] != 1 || d.Sum != 90012*time.Millisecond || len(d.Counts) != len(d.Bounds)+1 {
		t.Errorf("%+v", d)
	}
}
