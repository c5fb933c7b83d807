package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

type accountPage struct {
	Problem  string
	Email    string
	Admin    bool
	Sessions []counterfoil.Session
	Current  string // the session of this browser
}

// account shows the user's devices: each is a session.
func (a *app) account(w http.ResponseWriter, r *http.Request) error {
	return a.showAccount(w, r, http.StatusOK, "")
}

func (a *app) showAccount(w http.ResponseWriter, r *http.Request, status int, problem string) error {
	claims, _ := verify.FromContext(r.Context()) // there, since Browser let the request through
	page := accountPage{Problem: problem, Admin: claims.HasRole("admin"), Current: claims.SessionID}
	err := a.db.QueryRowContext(r.Context(), `SELECT email FROM users WHERE id = $1`, claims.Subject).Scan(&page.Email)
	if err != nil {
		return err
	}
	page.Sessions, _, err = a.auth.Sessions(r.Context(), counterfoil.ListQuery{Subject: claims.Subject, ActiveAt: time.Now()})
	if err != nil {
		return err
	}
	return a.show(w, status, "account", page)
}

// endDevice signs another device of the same user out. The id of a session is
// no secret, so whose it is has to be checked: Of does.
func (a *app) endDevice(w http.ResponseWriter, r *http.Request) error {
	claims, _ := verify.FromContext(r.Context())
	err := a.auth.RevokeSession(r.Context(), r.PostFormValue("sid"), counterfoil.SignedOutEverywhere,
		counterfoil.Of(claims.Subject), counterfoil.By("user"))
	if errors.Is(err, counterfoil.ErrNotFound) {
		return a.showAccount(w, r, http.StatusNotFound, "There is no such device.")
	}
	if err != nil {
		return err
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

type adminUser struct{ ID, Email, Role string }

// admin lists the users. The role that opened this page was read at most 30
// seconds ago: that is what MaxTokenAge asks for.
func (a *app) admin(w http.ResponseWriter, r *http.Request) error {
	users, err := a.users(r.Context())
	if err != nil {
		return err
	}
	return a.show(w, http.StatusOK, "admin", users)
}

func (a *app) users(ctx context.Context) ([]adminUser, error) {
	rows, err := a.db.QueryContext(ctx, `SELECT id, email, role FROM users ORDER BY email`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var users []adminUser
	for rows.Next() {
		var u adminUser
		if err := rows.Scan(&u.ID, &u.Email, &u.Role); err != nil {
			return nil, err
		}
		users = append(users, u)
	}
	return users, rows.Err()
}

// changeRole gives or takes the role admin. With the same commit the user's
// access tokens are stale: the next page is served with the new role, and
// nobody signs in again.
func (a *app) changeRole(w http.ResponseWriter, r *http.Request) error {
	id, role := r.PostFormValue("id"), r.PostFormValue("role")
	if role != "admin" {
		role = ""
	}
	if err := a.replaceRole(r.Context(), id, role); err != nil {
		return err
	}
	http.Redirect(w, r, "/admin", http.StatusSeeOther)
	return nil
}

func (a *app) replaceRole(ctx context.Context, id, role string) error {
	tx, err := a.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `UPDATE users SET role = $1 WHERE id = $2`, role, id); err != nil {
		return err
	}
	in, err := a.auth.InTx(tx)
	if err != nil {
		return err
	}
	if err := in.RightsChanged(ctx, id); err != nil {
		return err
	}
	return in.Commit()
}
