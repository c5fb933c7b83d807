package directory_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/internal/passkeytest"
	"github.com/counterfoil/counterfoil/verify"
)

// events are what Notify was told.
type events struct {
	mu  sync.Mutex
	all []directory.Event
}

func (e *events) notify(_ context.Context, event directory.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

func (e *events) take() []directory.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.all
	e.all = nil
	return all
}

func (e *events) want(t *testing.T, kind directory.EventKind, user, passkey string) {
	t.Helper()
	all := e.take()
	if len(all) != 1 || all[0].Kind != kind || all[0].User.ID != user || all[0].Passkey.Name != passkey || all[0].User.Password != "" {
		t.Errorf("notified of %+v, want one %s of %s", all, kind, passkey)
	}
}

func TestSEC97PasskeysAreAddedRenamedAndRemoved(t *testing.T) {
	var told events
	e := setup(t, func(c *directory.Config) { c.Notify = told.notify })
	b := e.browser()
	u := e.user("ann@example.com")
	g := e.grant("ann@example.com", goodPassword, b.ip)
	other := e.grant("ann@example.com", goodPassword, b.ip)
	token := g.SessionToken.Reveal()

	first := b.add(g, "")
	told.want(t, directory.PasskeyAdded, u.ID, "Passkey 1")
	second := b.add(g, " Ann's key 🔑 ")
	told.want(t, directory.PasskeyAdded, u.ID, "Ann's key 🔑")
	b.add(g, "")
	told.want(t, directory.PasskeyAdded, u.ID, "Passkey 2")
	if err := e.alive(other); err != nil {
		t.Errorf("adding ended another session: %v", err)
	}
	if p, err := e.RenamePasskey(t.Context(), token, first.ID, "Phone"); err != nil || p.Name != "Phone" || p.ID != first.ID {
		t.Errorf("renamed to %+v, %v", p, err)
	}
	list, err := e.Passkeys(t.Context(), token)
	if err != nil || len(list) != 3 || list[0].Name != "Phone" || list[1].ID != second.ID {
		t.Errorf("listed %+v, %v", list, err)
	}
	if err := e.RemovePasskey(t.Context(), token, first.ID); err != nil {
		t.Fatal(err)
	}
	told.want(t, directory.PasskeyRemoved, u.ID, "Phone")
	if err := e.alive(g); err != nil {
		t.Errorf("the session that removed it: %v", err)
	}
	// SEC-29: who holds the lost device is signed out with it.
	var ended *counterfoil.EndedError
	if err := e.alive(other); !errors.As(err, &ended) || ended.Reason != directory.PasskeyWasRemoved {
		t.Errorf("the other session: got %v, want it ended with its reason", err)
	}
	wantIs(t, "removing again", e.RemovePasskey(t.Context(), token, first.ID), counterfoil.ErrNotFound)
	_, err = e.RenamePasskey(t.Context(), token, "'; --", "x")
	wantIs(t, "renaming another's", err, counterfoil.ErrNotFound)
	for _, name := range []string{"", strings.Repeat("x", 65), "a\nb", "\xff"} {
		_, err := e.RenamePasskey(t.Context(), token, second.ID, name)
		wantField(t, err, "name")
	}
	if all := told.take(); len(all) != 0 {
		t.Errorf("told of what did not happen: %+v", all)
	}
}

func TestRemovedPasskeyDoesNotSignIn(t *testing.T) {
	e := setup(t, nil)
	b := e.browser()
	e.user("ann@example.com")
	g := e.grant("ann@example.com", goodPassword, b.ip)
	p := b.add(g, "")
	credential := b.get(b.beginSignIn(), nil)
	if err := e.RemovePasskey(t.Context(), g.SessionToken.Reveal(), p.ID); err != nil {
		t.Fatal(err)
	}
	_, err := b.finishSignIn(credential)
	wantIs(t, "removed", err, counterfoil.ErrInvalidCredentials)
	// Removed between the reading of the passkey and its use.
	b.add(g, "")
	stored := e.users.(*paused)
	credential = b.get(b.beginSignIn(), nil)
	stored.at = func(point string) {
		if point == "after User" {
			stored.at = nil
			if err := e.RemovePasskeyOf(context.Background(), g.Session.Subject, mustList(t, e, g)[0].ID, "operator"); err != nil {
				t.Error(err)
			}
		}
	}
	_, err = b.finishSignIn(credential)
	wantIs(t, "removed meanwhile", err, counterfoil.ErrInvalidCredentials)
}

func mustList(t *testing.T, e *env, g *counterfoil.Grant) []directory.Passkey {
	t.Helper()
	u, err := e.users.(*paused).Store.User(context.Background(), g.Session.Subject)
	if err != nil {
		t.Fatal(err)
	}
	return u.Passkeys
}

func TestTheLastWayInIsNeverRemoved(t *testing.T) {
	e := setup(t, nil)
	b := e.browser()
	g, u := b.signUp("ann@example.com")
	token := g.SessionToken.Reveal()
	wantIs(t, "the last", e.RemovePasskey(t.Context(), token, u.Passkeys[0].ID), directory.ErrLastPasskey)
	second := b.add(g, "")
	var all sync.WaitGroup
	errs := make([]error, 2)
	for i, id := range []string{u.Passkeys[0].ID, second.ID} {
		all.Go(func() { errs[i] = e.RemovePasskey(context.Background(), token, id) })
	}
	all.Wait()
	if list := mustList(t, e, g); len(list) != 1 {
		t.Errorf("%d passkeys are left, want 1; %v", len(list), errs)
	}
	// An operator may, and a reset token lets the user in again.
	if err := e.RemovePasskeyOf(t.Context(), u.ID, mustList(t, e, g)[0].ID, "operator"); err != nil {
		t.Fatal(err)
	}
	wantIs(t, "the session", e.alive(g), counterfoil.ErrSessionRevoked)
	reset, _, err := e.NewPasswordReset(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.ResetPassword(t.Context(), reset.Reveal(), goodPassword, nil); err != nil {
		t.Fatal(err)
	}
	e.grant("ann@example.com", goodPassword, b.ip)
	wantIs(t, "nobody's", e.RemovePasskeyOf(t.Context(), "x", "y", "operator"), counterfoil.ErrNotFound)
}

// SEC-29: who signed up with the address of somebody else, or planted a
// passkey in their account, has no way in any more once the owner of the
// address has reset the password.
func TestSEC29AResetRemovesPasskeys(t *testing.T) {
	var told events
	e := setup(t, func(c *directory.Config) { c.Notify = told.notify })
	stranger := e.browser()
	g, u := stranger.signUp("ann@example.com")
	open := stranger.beginSignIn()
	added, err := passkeytest.New("https://app.example").Create(stranger.beginAdd(g), nil)
	if err != nil {
		t.Fatal(err)
	}
	reset, _, err := e.NewPasswordReset(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	told.take()
	if err := e.ResetPassword(t.Context(), reset.Reveal(), goodPassword, nil); err != nil {
		t.Fatal(err)
	}
	told.want(t, directory.PasskeyRemoved, u.ID, "Passkey 1")
	wantIs(t, "the session", e.alive(g), counterfoil.ErrSessionRevoked)
	_, err = stranger.finishSignIn(stranger.get(open, nil))
	wantIs(t, "a sign-in that was begun before", err, counterfoil.ErrInvalidCredentials)
	_, err = stranger.signIn(nil)
	wantIs(t, "a sign-in", err, counterfoil.ErrInvalidCredentials)
	_, err = e.AddPasskey(t.Context(), g.SessionToken.Reveal(), "", added, stranger.request())
	wantIs(t, "a passkey that was begun before", err, counterfoil.ErrSessionRevoked)
	if list := mustList(t, e, e.grant("ann@example.com", goodPassword, "192.0.2.1")); len(list) != 0 {
		t.Errorf("%d passkeys are left", len(list))
	}
}

func TestSEC18PasskeysNeedARecentAuthentication(t *testing.T) {
	e := setup(t, nil)
	b := e.browser()
	g, u := b.signUp("ann@example.com")
	token, id := g.SessionToken.Reveal(), u.Passkeys[0].ID
	options := b.beginAdd(g)
	e.clock.advance(10 * time.Minute)
	if _, err := e.RenamePasskey(t.Context(), token, id, "in time"); err != nil {
		t.Errorf("after 10 minutes: %v", err)
	}
	e.clock.advance(time.Second)
	_, begin := e.BeginAddPasskey(t.Context(), token, b.request())
	_, rename := e.RenamePasskey(t.Context(), token, id, "x")
	_, add := e.AddPasskey(t.Context(), token, "", b.create(options, nil), b.request())
	b.auth.ID, b.auth.Handle = nil, nil
	for what, err := range map[string]error{"begin": begin, "rename": rename, "add": add, "remove": e.RemovePasskey(t.Context(), token, id)} {
		var refused *verify.Error
		if !errors.As(err, &refused) || refused.Code != verify.CodeInsufficientAuth || refused.MaxAge != 10*time.Minute {
			t.Errorf("%s: got %v, want %s with max_age", what, err, verify.CodeInsufficientAuth)
		}
	}
	if _, err := e.Passkeys(t.Context(), token); err != nil {
		t.Errorf("listing: %v", err)
	}
}

func TestSEC11StepUpByPasskey(t *testing.T) {
	e := setup(t, nil)
	b := e.browser()
	e.user("ben@example.com")
	none, err := e.BeginStepUp(t.Context(), e.grant("ben@example.com", goodPassword, b.ip).SessionToken.Reveal(), b.request())
	if err != nil || none.Passkey != nil || !none.Password {
		t.Errorf("a user with a password only: %+v, %v", none, err)
	}
	g, _ := b.signUp("ann@example.com")
	token := g.SessionToken.Reveal()
	e.clock.advance(time.Hour)
	ways, err := e.BeginStepUp(t.Context(), token, b.request())
	if err != nil || ways.Passkey == nil || ways.Password {
		t.Fatalf("a user with a passkey only: %+v, %v", ways, err)
	}
	b.cookie = ways.Passkey.Cookie
	up, err := e.StepUpWithPasskey(t.Context(), token, b.get(ways.Passkey.Options, nil), b.request())
	if err != nil {
		t.Fatal(err)
	}
	if up.Session.ID != g.Session.ID || !up.Session.AuthTime.Equal(e.clock.now()) || up.SessionToken.IsZero() {
		t.Errorf("stepped up to %+v", up.Session)
	}
	wantIs(t, "the token before", e.alive(g), counterfoil.ErrSessionUnknown)
	b.add(up, "")
	_, err = e.StepUpWithPasskey(t.Context(), token, b.get(ways.Passkey.Options, nil), b.request())
	wantIs(t, "with the token before", err, counterfoil.ErrSessionUnknown)
}

// Whoever has a stolen session must not plant a passkey that survives the
// change of the password.
func TestPasskeyIsNotAddedAcrossAPasswordChange(t *testing.T) {
	for point, want := range map[string]error{
		"after User":         counterfoil.ErrSessionRevoked,
		"after TakeCeremony": counterfoil.ErrInvalidCredentials, // after the session was found to be live
	} {
		t.Run(point, func(t *testing.T) {
			e := setup(t, nil)
			b := e.browser()
			e.user("ann@example.com")
			g, owner := e.grant("ann@example.com", goodPassword, b.ip), e.grant("ann@example.com", goodPassword, b.ip)
			credential := b.create(b.beginAdd(g), nil)
			stored := e.users.(*paused)
			stored.at = func(at string) {
				if at == point {
					stored.at = nil
					if _, err := e.ChangePassword(context.Background(), owner.SessionToken.Reveal(), goodPassword, otherPassword, nil); err != nil {
						t.Error(err)
					}
				}
			}
			_, err := e.AddPasskey(t.Context(), g.SessionToken.Reveal(), "", credential, b.request())
			wantIs(t, "add", err, want)
			if list := mustList(t, e, g); len(list) != 0 {
				t.Error("the passkey was added all the same")
			}
		})
	}
}

func TestPasskeyCounter(t *testing.T) {
	var told events
	e := setup(t, func(c *directory.Config) { c.Notify = told.notify })
	b := e.browser()
	b.auth.Count = 5
	g, u := b.signUp("ann@example.com")
	count := func() uint32 { return mustList(t, e, g)[0].SignCount }
	use := func(n uint32) {
		t.Helper()
		if _, err := b.signIn(func(w *answer) { w.Count = n }); err != nil {
			t.Fatalf("sign-in with count %d: %v", n, err)
		}
	}
	use(6)
	use(100)
	if all := told.take(); len(all) != 0 || count() != 100 {
		t.Errorf("count %d, told %+v", count(), all)
	}
	for _, n := range []uint32{100, 99, 0} {
		use(n)
		told.want(t, directory.PasskeyCounterWentBack, u.ID, "Passkey 1")
		if count() != 100 || !strings.Contains(e.log.String(), "counted backwards") {
			t.Errorf("after %d: count %d, log %s", n, count(), e.log)
		}
	}
	// Passkeys that are synchronised do not count.
	synced := e.browser()
	synced.auth.Flags |= passkeytest.BackupEligible
	g, _ = synced.signUp("ben@example.com")
	for _, flags := range []byte{passkeytest.BackedUp, 0, passkeytest.BackedUp} {
		if _, err := synced.signIn(func(w *answer) { w.Flags |= flags }); err != nil {
			t.Fatal(err)
		}
		if p := mustList(t, e, g)[0]; p.BackedUp != (flags != 0) || !p.BackupEligible {
			t.Errorf("kept %+v, want backed up %t", p, flags != 0)
		}
	}
	if all := told.take(); len(all) != 0 {
		t.Errorf("told %+v of a passkey that does not count", all)
	}
}

func TestTooManyPasskeys(t *testing.T) {
	e := setup(t, nil)
	b := e.browser()
	g, _ := b.signUp("ann@example.com")
	options := b.beginAdd(g)
	for range 19 {
		b.add(g, "")
	}
	_, err := b.BeginAddPasskey(t.Context(), g.SessionToken.Reveal(), b.request())
	wantIs(t, "begin", err, directory.ErrTooManyPasskeys)
	_, err = b.AddPasskey(t.Context(), g.SessionToken.Reveal(), "", b.create(options, nil), b.request())
	wantIs(t, "add", err, directory.ErrTooManyPasskeys)
	if list := mustList(t, e, g); list[19].Name != fmt.Sprint("Passkey ", 20) {
		t.Errorf("the last is %q", list[19].Name)
	}
}
