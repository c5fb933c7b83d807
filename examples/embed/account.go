package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"golang.org/x/crypto/bcrypt"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// showSignIn is the page for everybody without a session. err says why: a
// session that somebody ended tells the reason. The cookie stays: by now the
// browser may hold a newer one, and only sign-out clears it.
func (a *app) showSignIn(w http.ResponseWriter, r *http.Request, err error) {
	message := ""
	if ended, ok := errors.AsType[*counterfoil.EndedError](err); ok {
		message = "You are signed out on this device."
		if ended.Reason == counterfoil.PasswordChanged {
			message = "You are signed out: the password was changed on another device."
		}
	}
	status := http.StatusOK
	if r.URL.Path != "/sign-in" {
		status = http.StatusUnauthorized
	}
	if err := a.show(w, status, "sign-in", message); err != nil {
		slog.Error("page", "error", err)
	}
}

func (a *app) signIn(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	id, err := a.userID(ctx, r.PostFormValue("email"))
	if err != nil {
		return err
	}
	// README:start
	epoch, err := a.auth.Epoch(ctx, id) // before the password: a sign-in never outlives its change
	// README:end
	if err != nil {
		return err
	}
	// README:start
	_, ok, err := a.checkPassword(ctx, id, r.PostFormValue("password")) // your users, your way
	// README:end
	if err != nil {
		return err
	}
	if !ok {
		return a.show(w, http.StatusUnauthorized, "sign-in", "Wrong e-mail address or password.")
	}
	return a.start(w, r, id, epoch)
}

func (a *app) signUp(w http.ResponseWriter, r *http.Request) error {
	password := r.PostFormValue("password")
	if problem := badPassword(password); problem != "" {
		return a.show(w, http.StatusBadRequest, "sign-in", problem)
	}
	id, err := a.addUser(r.Context(), r.PostFormValue("email"), password)
	if errors.Is(err, errEmailTaken) {
		return a.show(w, http.StatusConflict, "sign-in", "This e-mail address has an account already.")
	}
	if err != nil {
		return err
	}
	return a.start(w, r, id, 0) // nobody had a password to change before
}

func badPassword(password string) string {
	if n := len(password); n < 15 || n > 72 { // bcrypt takes 72 bytes
		return "A password must have 15 to 72 characters."
	}
	return ""
}

// start gives this browser a session.
func (a *app) start(w http.ResponseWriter, r *http.Request, id string, epoch int64) error {
	// README:start
	grant, err := a.auth.StartSession(r.Context(), counterfoil.SignIn{
		Subject: id, Epoch: epoch, Request: r, Methods: []string{"pwd"},
	})
	// README:end
	if errors.Is(err, counterfoil.ErrSignedOutMeanwhile) {
		return a.show(w, http.StatusUnauthorized, "sign-in", "Wrong e-mail address or password.")
	}
	if err != nil {
		return err
	}
	// README:start
	grant.SetCookie(w)
	// README:end
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

// changePassword sets the new password and ends all other sessions, both or
// neither: one transaction in one database.
func (a *app) changePassword(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	current, changed := r.PostFormValue("current"), r.PostFormValue("new")
	if problem := badPassword(changed); problem != "" {
		return a.showAccount(w, r, http.StatusBadRequest, problem)
	}
	// Route and token say who it is; for this much the session is asked too.
	token, err := a.auth.SessionTokenFrom(r, "")
	if err != nil {
		return err
	}
	session, err := a.auth.Authenticate(ctx, token)
	if err != nil {
		return err
	}
	// Hashing is slow, so it is done before the transaction holds a lock.
	old, ok, err := a.checkPassword(ctx, session.Subject, current)
	if err != nil {
		return err
	}
	if !ok {
		return a.showAccount(w, r, http.StatusUnauthorized, "The current password is wrong.")
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(changed), bcryptCost)
	if err != nil {
		return err
	}
	if err := a.replacePassword(ctx, session, old, string(hash)); err != nil {
		return err
	}
	// This device goes on under a new secret: a stolen copy of its cookie is
	// worth nothing from here on.
	grant, err := a.auth.Reauthenticated(ctx, r, session, []string{"pwd"})
	if err != nil {
		return err
	}
	grant.SetCookie(w)
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

// replacePassword changes the row and ends the other sessions. Until Commit
// nothing has happened; after it every token of the other devices is refused.
func (a *app) replacePassword(ctx context.Context, session counterfoil.Session, old, hash string) error {
	tx, err := a.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	// Only if the password is still the one that was checked.
	result, err := tx.ExecContext(ctx, `UPDATE users SET password = $1 WHERE id = $2 AND password = $3`, hash, session.Subject, old)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return errors.Join(errors.New("the password was changed meanwhile"), err)
	}
	// README:start
	in, err := a.auth.InTx(tx) // your *sql.Tx: the new password and the sign-out commit as one
	// README:end
	if err != nil {
		return err
	}
	// README:start
	err = in.RevokeSubject(ctx, session.Subject, counterfoil.PasswordChanged, counterfoil.Except(session.ID))
	// README:end
	if err != nil {
		return err
	}
	// README:start
	return in.Commit()
	// README:end
}

// signOut ends the session first and clears the cookie then: if the first
// fails, the user is not told to be safe.
func (a *app) signOut(w http.ResponseWriter, r *http.Request) error {
	claims, _ := verify.FromContext(r.Context())
	if err := a.auth.RevokeSession(r.Context(), claims.SessionID, counterfoil.SignedOut, counterfoil.By("user")); err != nil {
		return err
	}
	a.auth.ClearCookies(w, "")
	http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
	return nil
}
