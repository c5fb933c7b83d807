package pages

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/verify"
)

// passkeysPage is the list of a user's passkeys.
type passkeysPage struct {
	Passkeys []passkey
	On       bool
	// Only says that there is no password: the last passkey has to stay.
	Only bool
}

type passkey struct {
	ID, Name string
	Made     moment
	Used     moment // empty: not yet
	Synced   bool
}

func (v *visit) showPasskeys() error { return v.passkeysForm(v.view("")) }

func (v *visit) passkeysForm(data *view) error {
	now := v.auth.Now()
	page := &passkeysPage{On: v.users.PasskeysOn()}
	for _, p := range v.user.Passkeys {
		page.Passkeys = append(page.Passkeys, passkey{p.ID, p.Name, at(p.CreatedAt, now), at(p.LastUsedAt, now), p.BackedUp})
	}
	password, err := v.hasPassword()
	if err != nil {
		return err
	}
	page.Only = !password && len(page.Passkeys) == 1
	data.Title, data.Data = "Your passkeys", page
	return v.show("passkeys", data)
}

// hasPassword is false too for a user whom another system keeps.
func (v *visit) hasPassword() (bool, error) {
	has, err := v.users.HasPassword(v.r.Context(), v.session.Subject)
	if errors.Is(err, counterfoil.ErrNotFound) {
		return false, nil
	}
	return has, err
}

func (v *visit) addPasskey() error {
	_, err := v.users.AddPasskey(v.r.Context(), v.token, v.form.Get("name"), []byte(v.form.Get("credential")), v.r)
	return v.passkeyDone(err, "passkey_added")
}

func (v *visit) renamePasskey() error {
	_, err := v.users.RenamePasskey(v.r.Context(), v.token, v.form.Get("id"), v.form.Get("name"))
	return v.passkeyDone(err, "passkey_renamed")
}

func (v *visit) removePasskey() error {
	return v.passkeyDone(v.users.RemovePasskey(v.r.Context(), v.token, v.form.Get("id")), "passkey_removed")
}

func (v *visit) passkeyDone(err error, note string) error {
	switch {
	case errors.Is(err, verify.ErrInsufficientUserAuthentication):
		return err // the step-up brings the form back
	case err != nil:
		return v.again(passkeyFault(err), v.passkeysForm)
	}
	v.note(note)
	return v.redirect("passkeys")
}

// passkeyFault says in words what only passkeys can suffer from.
func passkeyFault(err error) error {
	switch {
	case errors.Is(err, counterfoil.ErrInvalidCredentials):
		return &faultError{status: http.StatusUnauthorized, field: "credential", text: "This passkey is not known here: it was removed, or belongs to another account."}
	case errors.Is(err, counterfoil.ErrNotFound):
		return &faultError{status: http.StatusNotFound, text: "There is no such passkey any more."}
	case errors.Is(err, directory.ErrLastPasskey):
		return &faultError{status: http.StatusConflict, text: "This passkey is the last way to sign in, so it stays. Add another one first."}
	case errors.Is(err, directory.ErrTooManyPasskeys):
		return &faultError{status: http.StatusConflict, text: "There are as many passkeys as can be kept. Remove one first."}
	case errors.Is(err, directory.ErrPasskeysOff):
		return &faultError{status: http.StatusNotFound, text: "Passkeys cannot be used at this address."}
	}
	if field := (*counterfoil.FieldError)(nil); errors.As(err, &field) && field.Field == "credential" {
		return &faultError{status: http.StatusBadRequest, field: "credential", text: "This took too long, or was begun in another window. Try again."}
	}
	return err
}

// passkeyOptions begins a ceremony for the script of the pages. What the
// browser makes of it comes back in the form that asked.
func (v *visit) passkeyOptions() error {
	ceremony, err := v.beginCeremony()
	if err != nil {
		return v.optionsRefused(err)
	}
	http.SetCookie(v.w, ceremony.Cookie)
	return v.answerJSON(http.StatusOK, map[string]any{"publicKey": ceremony.Options})
}

func (v *visit) beginCeremony() (*directory.PasskeyCeremony, error) {
	ctx := v.r.Context()
	purpose := v.form.Get("for")
	switch purpose {
	case "sign-in":
		return v.users.BeginPasskeySignIn(ctx, v.r)
	case "sign-up":
		if !v.signUp {
			return nil, errNoPage
		}
		return v.users.BeginPasskeySignUp(ctx, v.form.Get("email"), v.r)
	}
	if err := v.findSession(); err != nil {
		return nil, err
	}
	switch purpose {
	case "add":
		return v.users.BeginAddPasskey(ctx, v.token, v.r)
	case "step-up":
		ways, err := v.users.BeginStepUp(ctx, v.token, v.r)
		if err == nil && ways.Passkey == nil {
			err = directory.ErrPasskeysOff
		}
		if err != nil {
			return nil, err
		}
		return ways.Passkey, nil
	}
	return nil, errNoForm
}

// optionsRefused tells the script what to show, or where to go.
func (v *visit) optionsRefused(err error) error {
	if errors.Is(err, verify.ErrInsufficientUserAuthentication) {
		return v.answerJSON(http.StatusUnauthorized, map[string]any{"go": withNext("step-up", "passkeys")})
	}
	if ends(err) {
		return v.answerJSON(http.StatusUnauthorized, map[string]any{"go": withNext("signed-out", "passkeys")})
	}
	if errors.Is(err, counterfoil.ErrConflict) {
		err = errTaken
	}
	fault := v.inWords(passkeyFault(err))
	return v.answerJSON(fault.status, map[string]any{"text": fault.text})
}

func (v *visit) answerJSON(status int, body map[string]any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	v.answered = true
	h := v.w.Header()
	h.Set("Cache-Control", "private, no-store")
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	v.w.WriteHeader(status)
	// A write fails when the client has gone; there is nobody left to tell.
	_, _ = v.w.Write(text)
	return nil
}
