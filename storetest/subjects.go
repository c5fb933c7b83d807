package storetest

import (
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
)

// wantFresh wants the epoch of a subject without a row: above every position
// ever given and every epoch ever reported.
func (e *env) wantFresh(epoch int64, reported []counterfoil.Revocation) {
	e.t.Helper()
	if head := e.head().Position; epoch <= head {
		e.t.Errorf("epoch %d of a new subject is not above the feed's head, %d", epoch, head)
	}
	for _, r := range reported {
		if epoch <= max(r.Position, r.StaleBelow, r.RevokedBelow) {
			e.t.Errorf("epoch %d of a new subject is not above the reported %q", epoch, brief([]counterfoil.Revocation{r}))
		}
	}
}

var subjectDuties = []duty{
	{"A subject without a row starts above all that was reported", func(t *testing.T, e *env) {
		var reported []counterfoil.Revocation
		e.wantFresh(e.subject("new").Epoch, nil)
		for range 3 {
			reported = append(reported, e.change()...)
			e.wantFresh(e.subject("new").Epoch, reported)
		}
		for i := range 10 { // the epoch of one subject runs ahead
			a := signOut("ann")
			if i%2 == 0 {
				a = rightsOnly("ann")
			}
			reported = append(reported, e.advance(a).Revocation)
			e.wantFresh(e.subject("new").Epoch, reported)
		}
		e.wantFresh(e.start("by Insert").Epoch0, reported)
		e.wantFresh(e.advance(rightsOnly("by Advance")).Subject.Epoch, reported)
		e.wantFresh(e.advance(signOut("by sign-out")).Subject.Epoch, reported)
	}},
	{"A new subject starts above all positions also after the log was emptied", func(t *testing.T, e *env) {
		reported := e.change()
		e.clock.move(retain + time.Minute)
		e.prune(e.clock.now())
		e.wantLogged(0, nil)
		e.wantFresh(e.subject("new").Epoch, reported)
		e.wantFresh(e.start("new").Epoch0, reported)
		e.wantFresh(e.subject("new").Epoch, reported)
	}},
	{"Subject makes no row and tells no more than the row will have", func(t *testing.T, e *env) {
		told := e.subject("new")
		if told.ID != "new" || told.SignedOutBelow != 0 || told.SignedOut != nil || told.Disabled {
			t.Errorf("got %+v, want an empty subject with an epoch", told)
		}
		reported := e.change()
		e.wantFresh(e.subject("new").Epoch, reported) // a row made by the first call would lag
		given := e.session("new")
		given.Epoch0 = told.Epoch
		snap, err := e.sessions.Insert(e.ctx, given)
		e.must("Insert with the epoch told before the row was there", err)
		if snap.Subject.Epoch < told.Epoch {
			t.Errorf("the row's epoch %d is below %d, which was told before", snap.Subject.Epoch, told.Epoch)
		}
		e.wantFresh(snap.Subject.Epoch, reported)
		if again := e.subject("new").Epoch; again != snap.Subject.Epoch {
			t.Errorf("the row's epoch changed from %d to %d by itself", snap.Subject.Epoch, again)
		}
	}},
	{"A sign-in that read the epoch of no row does not survive a sign-out", func(t *testing.T, e *env) {
		given := e.session("new")
		given.Epoch0 = e.subject("new").Epoch
		done := e.advance(signOut("new"))
		if done.Subject.SignedOutBelow <= given.Epoch0 {
			t.Errorf("signed out below %d, want above %d, which was told before", done.Subject.SignedOutBelow, given.Epoch0)
		}
		_, err := e.sessions.Insert(e.ctx, given)
		e.wantErr("Insert", err, counterfoil.ErrSignedOutMeanwhile)
	}},
	{"Advance for rights raises the epoch by one and ends nothing", func(t *testing.T, e *env) {
		s := e.start("ann")
		before := e.subject("ann")
		a := rightsOnly("ann")
		a.Rights = &counterfoil.Rights{Roles: []string{"admin", "user"}, Scope: []string{"read"}}
		done := e.advance(a)
		want := before
		want.Epoch++
		want.Rights = *a.Rights
		sameSubject(t, "Advanced.Subject", done.Subject, want)
		sameSubject(t, "Subject", e.subject("ann"), want)
		if done.Kept != nil {
			t.Error("Kept: got a session, want nil without Keep")
		}
		e.wantSubjectEntry(done.Revocation, "ann", want.Epoch, 0, "")
		e.wantLogged(0, []counterfoil.Revocation{done.Revocation})
		e.wantActive(s.ID, "only rights changed")
	}},
	{"Advance without Rights leaves them", func(t *testing.T, e *env) {
		a := rightsOnly("ann")
		a.Rights = &counterfoil.Rights{Roles: []string{"admin"}, Scope: []string{"read"}, Disabled: true}
		e.advance(a)
		sameRights(t, "after rights only", e.advance(rightsOnly("ann")).Subject.Rights, *a.Rights)
		sameRights(t, "after a sign-out", e.advance(signOut("ann")).Subject.Rights, *a.Rights)
		a.Rights = &counterfoil.Rights{}
		sameRights(t, "after empty Rights", e.advance(a).Subject.Rights, counterfoil.Rights{})
	}},
	{"Advance with SignOut ends every session of the subject", func(t *testing.T, e *env) {
		sessions := []counterfoil.Session{e.start("ann"), e.start("ann"), e.start("ann")}
		single := e.end(sessions[2].ID)
		other := e.start("ben")
		before := e.subject("ann")
		e.clock.move(time.Minute)
		a := signOut("ann")
		a.End.At = e.clock.now().Add(-100 * time.Hour) // the store's clock counts
		done := e.advance(a)
		end := &counterfoil.End{Reason: counterfoil.PasswordChanged, Actor: "operator", At: e.clock.now()}
		want := before
		want.Epoch++
		want.SignedOutBelow, want.SignedOut = want.Epoch, end
		sameSubject(t, "Advanced.Subject", done.Subject, want)
		sameSubject(t, "Subject", e.subject("ann"), want)
		e.wantSubjectEntry(done.Revocation, "ann", want.Epoch, want.Epoch, "")
		for _, s := range sessions[:2] {
			e.wantRevoked(s.ID, "the subject was signed out everywhere")
			sameEnd(t, "the end of a session", e.snapshot(s.ID).Session.End, end)
		}
		sameEnd(t, "a session that had ended before", e.snapshot(sessions[2].ID).Session.End, single.Session.End)
		e.wantActive(other.ID, "another subject was signed out")
		e.wantLogged(0, append(single.Revocations, done.Revocation))
	}},
	{"A sign-in after a sign-out goes on, and the next sign-out ends it", func(t *testing.T, e *env) {
		e.advance(signOut("ann"))
		s := e.start("ann")
		e.wantActive(s.ID, "it started after the sign-out")
		e.advance(rightsOnly("ann"))
		e.wantActive(s.ID, "only rights changed")
		e.advance(signOut("ann"))
		e.wantRevoked(s.ID, "the second sign-out")
	}},
	{"A later sign-out leaves the ends of earlier ones as they are", func(t *testing.T, e *env) {
		var gone []counterfoil.Session
		ends := map[string]*counterfoil.End{}
		kept := e.start("ann")
		for i, reason := range []counterfoil.Reason{counterfoil.PasswordChanged, counterfoil.SignedOutEverywhere, counterfoil.Revoked, counterfoil.Disabled} {
			e.clock.move(24 * time.Hour)
			gone = append(gone, e.start("ann"), e.start("ann"))
			single := e.start("ann")
			a := signOut("ann")
			if i%2 == 0 {
				a.Keep = &counterfoil.Keep{ID: kept.ID}
			}
			a.End = counterfoil.End{Reason: reason, Actor: "actor of " + string(reason)}
			ends[single.ID] = e.end(single.ID).Session.End
			e.clock.move(time.Hour)
			e.advance(a)
			a.End.At = e.clock.now()
			for _, s := range gone[len(gone)-2:] {
				ends[s.ID] = &a.End
			}
			gone = append(gone, single)
			if i == 1 { // kept until now
				ends[kept.ID] = &a.End
				gone = append(gone, kept)
			}
			e.clock.move(time.Hour)
			e.advance(rightsOnly("ann"))
		}
		listed := map[string]counterfoil.Session{}
		for _, s := range e.list(counterfoil.ListQuery{Subject: "ann", Limit: 100}) {
			listed[s.ID] = s
		}
		for _, s := range gone {
			sameEnd(t, "Snapshot", e.snapshot(s.ID).Session.End, ends[s.ID])
			sameEnd(t, "List", listed[s.ID].End, ends[s.ID])
			ended := e.end(s.ID)
			sameEnd(t, "End of the ended", ended.Session.End, ends[s.ID])
			if ended.Changed {
				t.Error("End changed a session that had ended")
			}
		}
	}},
	{"What an earlier sign-out ended is purged in its time", func(t *testing.T, e *env) {
		first := e.start("ann")
		e.clock.move(time.Minute)
		e.advance(signOut("ann"))
		e.clock.move(time.Hour)
		between := e.clock.now()
		e.clock.move(time.Hour)
		second := e.start("ann")
		e.advance(signOut("ann"))
		for range 3 {
			_, err := e.sessions.Purge(e.ctx, between, 100)
			e.must("Purge", err)
		}
		_, err := e.sessions.Snapshot(e.ctx, first.ID)
		e.wantErr("Snapshot of what ended before", err, counterfoil.ErrNotFound)
		e.wantRevoked(second.ID, "it ended after the time of the purge, and is not deleted")
	}},
	{"A change of rights keeps what was signed out", func(t *testing.T, e *env) {
		s := e.start("ann")
		out := e.advance(signOut("ann")).Subject
		e.clock.move(time.Minute)
		after := e.advance(rightsOnly("ann")).Subject
		if after.SignedOutBelow != out.SignedOutBelow {
			t.Errorf("signed out below %d, want %d as before", after.SignedOutBelow, out.SignedOutBelow)
		}
		sameEnd(t, "SignedOut", after.SignedOut, out.SignedOut)
		e.wantRevoked(s.ID, "a change of rights brings no session back")
	}},
	{"Advance makes the row of a new subject", func(t *testing.T, e *env) {
		a := signOut("new")
		a.Rights = &counterfoil.Rights{Roles: []string{"guest"}}
		done := e.advance(a)
		sameSubject(t, "Subject", e.subject("new"), done.Subject)
		sameRights(t, "Rights", done.Subject.Rights, *a.Rights)
		e.wantLogged(0, []counterfoil.Revocation{done.Revocation})
	}},
	{"Advance can disable and sign out at once", func(t *testing.T, e *env) {
		s := e.start("ann")
		a := signOut("ann")
		a.End.Reason, a.Rights = counterfoil.Disabled, &counterfoil.Rights{Disabled: true}
		e.advance(a)
		e.wantRevoked(s.ID, "the subject was disabled")
		_, err := e.sessions.Insert(e.ctx, e.session("ann"))
		e.wantErr("Insert", err, counterfoil.ErrSubjectDisabled)
	}},
}

var keepDuties = []duty{
	{"Keep raises the kept session's Epoch0 and ends the others", func(t *testing.T, e *env) {
		kept, other := e.start("ann"), e.start("ann")
		done := e.advance(others("ann", kept.ID))
		if done.Kept == nil {
			t.Fatal("Kept: got nil, want the session")
		}
		want := kept
		want.Epoch0 = done.Subject.Epoch
		sameSession(t, "Kept", *done.Kept, want)
		sameSession(t, "Snapshot", e.snapshot(kept.ID).Session, want)
		e.wantActive(kept.ID, "it was kept")
		e.wantRevoked(other.ID, "another session was kept")
		e.wantSubjectEntry(done.Revocation, "ann", done.Subject.Epoch, done.Subject.Epoch, kept.ID)
		e.wantLogged(0, []counterfoil.Revocation{done.Revocation})
		e.advance(signOut("ann"))
		e.wantRevoked(kept.ID, "the next sign-out keeps none")
	}},
	{"Keep can be repeated", func(t *testing.T, e *env) {
		kept := e.start("ann")
		for range 3 {
			e.start("ann")
			e.advance(others("ann", kept.ID))
			e.wantActive(kept.ID, "it was kept each time")
			if n := len(e.list(counterfoil.ListQuery{Subject: "ann", ActiveAt: e.clock.now(), Limit: 10})); n != 1 {
				t.Errorf("%d sessions are active, want the kept one", n)
			}
		}
	}},
	{"Keep replaces secret, AuthTime and Methods where given", func(t *testing.T, e *env) {
		kept := e.start("ann")
		a := others("ann", kept.ID)
		e.clock.move(time.Minute)
		a.Keep.SecretHash, a.Keep.AuthTime, a.Keep.Methods = randomHash(), e.clock.now(), []string{"pwd", "otp"}
		done := e.advance(a)
		want := kept
		want.Epoch0, want.SecretHash, want.AuthTime, want.Methods = done.Subject.Epoch, a.Keep.SecretHash, a.Keep.AuthTime, a.Keep.Methods
		sameSession(t, "Snapshot", e.snapshot(kept.ID).Session, want)

		done = e.advance(others("ann", kept.ID))
		want.Epoch0 = done.Subject.Epoch
		sameSession(t, "nothing given, nothing replaced", e.snapshot(kept.ID).Session, want)

		a = others("ann", kept.ID)
		a.Keep.Methods = []string{}
		done = e.advance(a)
		want.Epoch0, want.Methods = done.Subject.Epoch, nil
		sameSession(t, "empty Methods replace", e.snapshot(kept.ID).Session, want)
	}},
	{"Keep does not bring back a session that had ended", func(t *testing.T, e *env) {
		byEnd, byEpoch := e.start("ann"), e.start("ann")
		e.advance(others("ann", byEnd.ID)) // ends byEpoch
		e.end(byEnd.ID)
		for why, s := range map[string]counterfoil.Session{"End": byEnd, "an earlier sign-out": byEpoch} {
			before := e.snapshot(s.ID).Session
			a := others("ann", s.ID)
			a.Keep.SecretHash = randomHash()
			a.Keep.Methods = []string{"otp"}
			done := e.advance(a)
			if done.Kept != nil {
				t.Errorf("ended by %s: Kept: got a session, want nil", why)
			}
			if done.Revocation.Except != "" {
				t.Errorf("ended by %s: the entry excepts %q, which was not kept", why, done.Revocation.Except)
			}
			e.wantRevoked(s.ID, "it had ended by "+why)
			after := e.snapshot(s.ID).Session
			if after.SecretHash != before.SecretHash || after.Epoch0 != before.Epoch0 {
				t.Errorf("ended by %s: the row was changed", why)
			}
		}
	}},
	{"Keep of an unknown session signs all out", func(t *testing.T, e *env) {
		s := e.start("ann")
		done := e.advance(others("ann", opaque.NewID()))
		if done.Kept != nil || done.Revocation.Except != "" {
			t.Errorf("got kept %v, except %q; want neither", done.Kept, done.Revocation.Except)
		}
		e.wantRevoked(s.ID, "it was not the one to keep")
	}},
	{"Keep of another subject's session keeps none", func(t *testing.T, e *env) {
		ann, ben := e.start("ann"), e.start("ben")
		a := others("ann", ben.ID)
		a.Keep.SecretHash = randomHash()
		done := e.advance(a)
		if done.Kept != nil || done.Revocation.Except != "" {
			t.Errorf("got kept %v, except %q; want neither", done.Kept, done.Revocation.Except)
		}
		e.wantRevoked(ann.ID, "its subject was signed out")
		sameSession(t, "the other subject's session", e.snapshot(ben.ID).Session, ben)
	}},
}
