package storetest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// sameTime compares to the millisecond, and wants UTC.
func sameTime(t *testing.T, what string, got, want time.Time) {
	t.Helper()
	if d := got.Sub(want); d <= -time.Millisecond || d >= time.Millisecond {
		t.Errorf("%s: got %s, want %s", what, got, want)
	}
	if got.Location() != time.UTC {
		t.Errorf("%s: got a time in %s, want UTC", what, got.Location())
	}
}

// sameSession compares every field. The ends are compared by sameEnd.
func sameSession(t *testing.T, what string, got, want counterfoil.Session) {
	t.Helper()
	sameText(t, what+": ID", got.ID, want.ID)
	sameText(t, what+": Subject", got.Subject, want.Subject)
	sameText(t, what+": ClientID", got.ClientID, want.ClientID)
	sameText(t, what+": ParentID", got.ParentID, want.ParentID)
	sameTime(t, what+": CreatedAt", got.CreatedAt, want.CreatedAt)
	sameTime(t, what+": LastActiveAt", got.LastActiveAt, want.LastActiveAt)
	if got.IdleTimeout.Truncate(time.Millisecond) != want.IdleTimeout.Truncate(time.Millisecond) {
		t.Errorf("%s: IdleTimeout: got %s, want %s", what, got.IdleTimeout, want.IdleTimeout)
	}
	sameTime(t, what+": ExpiresAt", got.ExpiresAt, want.ExpiresAt)
	sameTime(t, what+": AuthTime", got.AuthTime, want.AuthTime)
	sameList(t, what+": Methods", got.Methods, want.Methods)
	sameText(t, what+": Device.UserAgent", got.Device.UserAgent, want.Device.UserAgent)
	sameText(t, what+": Device.IP", got.Device.IP, want.Device.IP)
	if got.Epoch0 != want.Epoch0 {
		t.Errorf("%s: Epoch0: got %d, want %d", what, got.Epoch0, want.Epoch0)
	}
	sameListOrNil(t, what+": Roles", got.Roles, want.Roles)
	sameListOrNil(t, what+": Scope", got.Scope, want.Scope)
	sameExtra(t, what+": Extra", got.Extra, want.Extra)
	if got.SecretHash != want.SecretHash {
		t.Errorf("%s: SecretHash: got %x, want %x", what, got.SecretHash, want.SecretHash)
	}
	sameBinding(t, what+": Binding", got.Binding, want.Binding)
	sameEnd(t, what+": End", got.End, want.End)
}

func sameBinding(t *testing.T, what string, got, want *counterfoil.Binding) {
	t.Helper()
	switch {
	case got == nil && want == nil:
	case got == nil || want == nil:
		t.Errorf("%s: got %+v, want %+v", what, got, want)
	default:
		if got.Key != want.Key || got.Proofs != want.Proofs {
			t.Errorf("%s: got key %x and %d proofs, want %x and %d", what, got.Key, got.Proofs, want.Key, want.Proofs)
		}
		sameTime(t, what+": RegisteredAt", got.RegisteredAt, want.RegisteredAt)
	}
}

func sameEnd(t *testing.T, what string, got, want *counterfoil.End) {
	t.Helper()
	switch {
	case got == nil && want == nil:
	case got == nil || want == nil:
		t.Errorf("%s: got %+v, want %+v", what, got, want)
	default:
		sameText(t, what+": Reason", string(got.Reason), string(want.Reason))
		sameText(t, what+": Actor", got.Actor, want.Actor)
		sameTime(t, what+": At", got.At, want.At)
	}
}

func sameSubject(t *testing.T, what string, got, want counterfoil.Subject) {
	t.Helper()
	sameText(t, what+": ID", got.ID, want.ID)
	if got.Epoch != want.Epoch || got.SignedOutBelow != want.SignedOutBelow {
		t.Errorf("%s: got epoch %d, signed out below %d; want %d, %d", what,
			got.Epoch, got.SignedOutBelow, want.Epoch, want.SignedOutBelow)
	}
	sameEnd(t, what+": SignedOut", got.SignedOut, want.SignedOut)
	sameRights(t, what, got.Rights, want.Rights)
}

func sameRights(t *testing.T, what string, got, want counterfoil.Rights) {
	t.Helper()
	sameList(t, what+": Roles", got.Roles, want.Roles)
	sameList(t, what+": Scope", got.Scope, want.Scope)
	if got.Disabled != want.Disabled {
		t.Errorf("%s: Disabled: got %t, want %t", what, got.Disabled, want.Disabled)
	}
}

func sameText(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %.300q, want %.300q", what, got, want)
	}
}

// sameList takes nil and empty for the same.
func sameList(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %.300q, want %.300q", what, got, want)
	}
}

// sameListOrNil tells nil ("not given") from empty ("none").
func sameListOrNil(t *testing.T, what string, got, want []string) {
	t.Helper()
	sameList(t, what, got, want)
	if (got == nil) != (want == nil) {
		t.Errorf("%s: got nil %t, want nil %t: nil leaves it to the subject's rights, empty means none", what, got == nil, want == nil)
	}
}

// sameExtra compares as JSON: the Go types of numbers are the store's choice.
func sameExtra(t *testing.T, what string, got, want map[string]any) {
	t.Helper()
	if len(got) == 0 && len(want) == 0 {
		return
	}
	g, err := json.Marshal(got)
	if err != nil {
		t.Errorf("%s: not JSON: %v", what, err)
	}
	w, err := json.Marshal(want)
	if err != nil {
		t.Fatalf("%s: the test's own value: %v", what, err)
	}
	if !bytes.Equal(g, w) {
		t.Errorf("%s: got %.300s, want %.300s", what, g, w)
	}
}

// number reads a counter from Extra, whatever Go type the store gives it.
func number(v any) int {
	var n int
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &n)
	}
	if err != nil {
		panic(fmt.Sprintf("Extra: %v is no number", v))
	}
	return n
}

func sameEntry(a, b counterfoil.Revocation) bool {
	until := a.Until.Equal(b.Until)
	a.Until, b.Until = time.Time{}, time.Time{}
	return a == b && until
}

// wantLogged wants the log above after to hold the reported entries, each
// once and with the same content, and nothing else.
func (e *env) wantLogged(after int64, reported []counterfoil.Revocation) {
	e.t.Helper()
	log := e.loggedAfter(after)
	e.wantRising(log)
	reported = slices.Clone(reported)
	slices.SortFunc(reported, func(a, b counterfoil.Revocation) int { return cmp.Compare(a.Position, b.Position) })
	for i := 1; i < len(reported); i++ {
		if reported[i].Position == reported[i-1].Position {
			e.t.Errorf("position %d was given to two entries", reported[i].Position)
		}
	}
	if !slices.EqualFunc(log, reported, sameEntry) {
		e.t.Errorf("the log must hold what was reported, each entry once:\n      log %+v\n reported %+v", brief(log), brief(reported))
	}
}

func brief(entries []counterfoil.Revocation) []string {
	out := make([]string, len(entries))
	for i, r := range entries {
		out[i] = fmt.Sprintf("%d:%s %s stale<%d revoked<%d except %q until %s", r.Position, r.Kind, r.ID,
			r.StaleBelow, r.RevokedBelow, r.Except, r.Until.UTC().Format(time.RFC3339Nano))
	}
	return out
}

func (e *env) wantRising(log []counterfoil.Revocation) {
	e.t.Helper()
	for i, r := range log {
		if r.Position <= 0 || i > 0 && r.Position <= log[i-1].Position {
			e.t.Errorf("positions must be above 0 and rise strictly: %q", brief(log))
			return
		}
	}
}

// wantUntil wants an entry that was made now to be kept as long as asked,
// rounded up to the second at most.
func (e *env) wantUntil(r counterfoil.Revocation) {
	e.t.Helper()
	want := e.clock.now().Add(retain)
	if r.Until.Before(want.Add(-time.Millisecond)) || r.Until.After(want.Add(time.Second+time.Millisecond)) {
		e.t.Errorf("Until: got %s, want now + retain = %s, rounded up to the second at most", r.Until, want)
	}
}

// wantSubjectEntry wants the entry of an advance or a stale update.
func (e *env) wantSubjectEntry(r counterfoil.Revocation, subject string, stale, revokedBelow int64, except string) {
	e.t.Helper()
	want := counterfoil.Revocation{
		Kind: revoked.Subject, ID: subject, StaleBelow: stale, RevokedBelow: revokedBelow,
		Except: except, Until: r.Until, Position: r.Position,
	}
	if r != want || r.Position <= 0 {
		e.t.Errorf("entry of the subject: got %q, want %q", brief([]counterfoil.Revocation{r}), brief([]counterfoil.Revocation{want}))
	}
	e.wantUntil(r)
}
