package httpapi

import (
	"errors"
	"net/http"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
)

func userRoutes() []route {
	routes := []route{
		handle(route{
			method: http.MethodGet, path: "/users", name: "listUsers",
			summary: "The users, or the one with an e-mail address",
		}, listUsers),
		handle(route{
			method: http.MethodPost, path: "/users", name: "createUser", status: http.StatusCreated,
			summary: "Add a user", detail: "Without a password the user sets one with a password-reset token.",
			faults: []fault{faultConflict},
		}, createUser),
		handle(route{
			method: http.MethodGet, path: "/users/{id}", name: "readUser",
			summary: "One user", faults: []fault{faultNotFound},
		}, readUser),
		handle(route{
			method: http.MethodPatch, path: "/users/{id}", name: "changeUser",
			summary: "Change a user",
			detail:  "Absent members stay; null is refused. Other roles or scopes make the access tokens stale; disabling and another address sign the user out everywhere.",
			faults:  []fault{faultNotFound, faultConflict},
		}, changeUser),
		handle(route{
			method: http.MethodDelete, path: "/users/{id}", name: "deleteUser",
			summary: "Delete a user and end all sessions", faults: []fault{faultNotFound},
		}, deleteUser),
		handle(route{
			method: http.MethodPost, path: "/users/{id}/password-reset", name: "createPasswordReset", status: http.StatusCreated,
			summary: "Make a one-time token that lets the user set a new password",
			detail:  "Send it by mail, in a link whose host is configured, not taken from a request. It replaces an earlier one.",
			faults:  []fault{faultNotFound},
		}, createPasswordReset),
	}
	for i := range routes {
		routes[i].scope = counterfoil.ScopeUsers
	}
	return routes
}

type listUsersRequest struct {
	Email string `query:"email" doc:"Only the user with this address, in any letter case."`
	After string `query:"after" doc:"The next of the page before."`
	Limit int    `query:"limit" doc:"Users a page, 1 to 1000; default 100."`
}

const defaultPage = 100

func listUsers(c *call, in *listUsersRequest) (*userPage, error) {
	if in.Email != "" {
		if in.After != "" || in.Limit != 0 {
			return nil, &counterfoil.FieldError{Field: "email", Message: "cannot be given together with after or limit"}
		}
		u, err := c.users.ByEmail(c.ctx(), in.Email)
		if errors.Is(err, counterfoil.ErrNotFound) {
			return &userPage{Users: []user{}}, nil
		}
		if err != nil {
			return nil, err
		}
		return &userPage{Users: []user{shownUser(&u)}}, nil
	}
	if in.Limit == 0 {
		in.Limit = defaultPage
	}
	users, next, err := c.users.List(c.ctx(), in.After, in.Limit)
	if errors.Is(err, counterfoil.ErrInvalidCursor) {
		return nil, &counterfoil.FieldError{Field: "after", Message: "is not the next of an earlier page"}
	}
	if err != nil {
		return nil, err
	}
	page := &userPage{Users: make([]user, 0, len(users)), Next: next}
	for i := range users {
		page.Users = append(page.Users, shownUser(&users[i]))
	}
	return page, nil
}

type createUserRequest struct {
	Email    string   `json:"email" required:"true"`
	Password password `json:"password"`
	Roles    []string `json:"roles"`
	Scope    []string `json:"scope" doc:"Scopes, one a string."`
	Disabled bool     `json:"disabled" doc:"No session may start."`
}

func createUser(c *call, in *createUserRequest) (user, error) {
	u, err := c.users.Create(c.ctx(), directory.NewUser{
		Email: in.Email, Password: string(in.Password),
		Rights: counterfoil.Rights{Roles: in.Roles, Scope: in.Scope, Disabled: in.Disabled},
	})
	return shownUser(&u), err
}

func readUser(c *call, in *userRequest) (user, error) {
	u, err := c.users.Get(c.ctx(), in.ID)
	return shownUser(&u), noUser(err)
}

type changeUserRequest struct {
	ID       string    `path:"id" doc:"The user's id."`
	Email    *string   `json:"email" null:"refused"`
	Roles    *[]string `json:"roles" null:"refused" doc:"[] takes all away."`
	Scope    *[]string `json:"scope" null:"refused" doc:"[] takes all away."`
	Disabled *bool     `json:"disabled" null:"refused" doc:"true also signs the user out everywhere."`
}

func changeUser(c *call, in *changeUserRequest) (user, error) {
	what := directory.Change{Email: in.Email, Roles: in.Roles, Scope: in.Scope, Disabled: in.Disabled}
	if what == (directory.Change{}) {
		return user{}, &counterfoil.FieldError{Field: "body", Message: "changes nothing: give email, roles, scope or disabled"}
	}
	what.Actor = c.key.ID
	u, err := c.users.Update(c.ctx(), in.ID, what)
	return shownUser(&u), noUser(err)
}

func deleteUser(c *call, in *userRequest) (none, error) {
	return none{}, noUser(c.users.Delete(c.ctx(), in.ID, c.key.ID))
}

type resetToken struct {
	Token     string   `json:"token" doc:"For POST /password-reset of the device. Shown once."`
	ExpiresAt unixTime `json:"expires_at"`
}

func createPasswordReset(c *call, in *userRequest) (*resetToken, error) {
	token, expires, err := c.users.NewPasswordReset(c.ctx(), in.ID)
	if err != nil {
		return nil, noUser(err)
	}
	return &resetToken{token.Reveal(), unix(expires)}, nil
}

func noUser(err error) error {
	if errors.Is(err, counterfoil.ErrNotFound) {
		return &notFoundError{"There is no such user."}
	}
	return err
}
