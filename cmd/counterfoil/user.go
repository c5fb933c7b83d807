package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
)

func userCommand() *command {
	return &command{
		name:  "user",
		short: "Users who sign in here",
		children: []*command{
			{
				name:  "create",
				args:  "EMAIL",
				short: "Add a user",
				long: `The password is asked for without echo. In a script, give it on stdin with
--password-stdin, or let one be made with --generate; it is printed once.`,
				examples: []string{
					"counterfoil user create ann@example.org",
					"counterfoil user create ann@example.org --generate --role admin",
					"pass show ann | counterfoil user create ann@example.org --password-stdin",
				},
				setup: userCreate,
			},
			{name: "list", short: "List users by e-mail address", setup: userList},
			{
				name:     "disable",
				args:     "ID | EMAIL",
				short:    "Keep a user out, and end all their sessions",
				examples: []string{"counterfoil user disable ann@example.org"},
				setup:    userDisable(true),
			},
			{name: "enable", args: "ID | EMAIL", short: "Let a disabled user in again", setup: userDisable(false)},
			{name: "passkeys", args: "ID | EMAIL", short: "List a user's passkeys", setup: userPasskeys},
			{
				name:     "remove-passkey",
				args:     "ID | EMAIL  PASSKEY",
				short:    "Remove a passkey that was lost, and end all sessions of the user",
				examples: []string{`counterfoil user remove-passkey ann@example.org "Old phone"`},
				setup:    userRemovePasskey,
			},
		},
	}
}

// userJSON is a user as JSON shows it. password is there once.
type userJSON struct {
	ID        string   `json:"id"`
	Email     string   `json:"email"`
	Password  string   `json:"password,omitempty"`
	Roles     []string `json:"roles"`
	Scope     []string `json:"scope"`
	Disabled  bool     `json:"disabled"`
	CreatedAt *int64   `json:"created_at"`
}

func toUserJSON(u directory.User) userJSON {
	return userJSON{
		ID: u.ID, Email: u.Email, Roles: append([]string{}, u.Rights.Roles...), Scope: append([]string{}, u.Rights.Scope...),
		Disabled: u.Rights.Disabled, CreatedAt: unix(u.CreatedAt),
	}
}

// withUsers opens the directory for fn.
func withUsers(ctx context.Context, database storesValue, fn func(*directory.Directory) error) error {
	return withOperator(ctx, database, "", func(o *operator) error {
		users, err := directory.New(o.Authority, o.database.whole().Users(), directory.Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		return fn(users)
	})
}

func userCreate(a *app, f *flags) func(context.Context, []string) error {
	var roles, scope listValue
	var generate, fromStdin boolValue
	f.add(&roles, "role", "ROLE", "a role the user has; several by comma")
	f.add(&scope, "scope", "SCOPE", "a scope the user has; several by comma")
	f.add(&generate, "generate", "", "make a password and print it once")
	f.add(&fromStdin, "password-stdin", "", "read the password from the first line of stdin")
	database := storesFlags(f)
	asJSON := jsonFlag(f)
	f.configFlag()
	return func(ctx context.Context, args []string) error {
		email, err := oneArg(args, "the e-mail address")
		if err != nil {
			return err
		}
		if _, _, err := directory.NormalEmail(email); err != nil {
			return flagError(err)
		}
		// The database is opened first: nobody types a password for nothing.
		return withUsers(ctx, *database, func(users *directory.Directory) error {
			password, err := newPassword(ctx, a, bool(generate), bool(fromStdin))
			if err != nil {
				return err
			}
			u, err := users.Create(ctx, directory.NewUser{
				Email: email, Password: password, Rights: counterfoil.Rights{Roles: roles, Scope: scope},
			})
			if errors.Is(err, counterfoil.ErrConflict) {
				return fmt.Errorf("there is a user %s already", printable(email))
			}
			if err != nil {
				return flagError(err)
			}
			return showNewUser(a, u, password, bool(generate), bool(*asJSON))
		})
	}
}

func newPassword(ctx context.Context, a *app, generate, fromStdin bool) (string, error) {
	switch {
	case generate && fromStdin:
		return "", usagef("give --generate or --password-stdin, not both")
	case generate:
		return generatePassword(), nil
	case fromStdin:
		password, err := readLine(ctx, a.stdin)
		if err == nil && password == "" {
			err = errors.New("stdin holds no password: it is the first line")
		}
		return password, err
	case isTerminal(a.stdin):
		return askPassword(ctx, a)
	}
	return "", usagef("nobody can be asked for the password, since stdin is not a terminal: give --password-stdin or --generate")
}

func showNewUser(a *app, u directory.User, password string, generated, asJSON bool) error {
	p := newPrinter(a)
	if asJSON {
		out := toUserJSON(u)
		if generated {
			out.Password = password
		}
		return p.json(out)
	}
	rows := [][]cell{{text("id"), text(u.ID)}, {text("email"), text(u.Email)}}
	if len(u.Rights.Roles) > 0 {
		rows = append(rows, []cell{text("roles"), text(strings.Join(u.Rights.Roles, " "))})
	}
	if len(u.Rights.Scope) > 0 {
		rows = append(rows, []cell{text("scope"), text(strings.Join(u.Rights.Scope, " "))})
	}
	if generated {
		rows = append(rows, []cell{text("password"), text(password)})
	}
	p.columns("", rows)
	if generated {
		fmt.Fprintln(a.stderr, "The password is shown this once.")
	}
	return nil
}

func userList(a *app, f *flags) func(context.Context, []string) error {
	var after textValue
	limit := intValue(100)
	f.add(&limit, "limit", "N", "at most so many, 1 to 1000")
	f.add(&after, "after", "CURSOR", "the page after the one that ended with CURSOR")
	database := storesFlags(f)
	asJSON := jsonFlag(f)
	f.configFlag()
	return func(ctx context.Context, args []string) error {
		if err := noArgs(args); err != nil {
			return err
		}
		return withUsers(ctx, *database, func(users *directory.Directory) error {
			list, next, err := users.List(ctx, string(after), int(limit))
			if err != nil {
				return flagError(err)
			}
			p := newPrinter(a)
			if *asJSON {
				return p.json(userPage(list, next))
			}
			if len(list) == 0 {
				fmt.Fprintln(a.stderr, "There are no users.")
				return nil
			}
			p.table(userRows(p, list))
			if next != "" {
				fmt.Fprintf(a.stderr, "More with --after %s\n", next)
			}
			return nil
		})
	}
}

func userPage(list []directory.User, next string) map[string]any {
	out := make([]userJSON, 0, len(list))
	for _, u := range list {
		out = append(out, toUserJSON(u))
	}
	page := map[string]any{"users": out}
	if next != "" {
		page["next"] = next
	}
	return page
}

func userRows(p *printer, list []directory.User) [][]cell {
	rows := [][]cell{{text("ID"), text("EMAIL"), text("STATUS"), text("ROLES"), text("SCOPE"), text("CREATED")}}
	for _, u := range list {
		status := styled(good, "enabled")
		if u.Rights.Disabled {
			status = styled(bad, "disabled")
		}
		rows = append(rows, []cell{
			text(u.ID), text(u.Email), status, text(strings.Join(u.Rights.Roles, " ")),
			text(strings.Join(u.Rights.Scope, " ")), text(p.ago(u.CreatedAt)),
		})
	}
	return rows
}

func userDisable(disabled bool) func(*app, *flags) func(context.Context, []string) error {
	return func(a *app, f *flags) func(context.Context, []string) error {
		database := storesFlags(f)
		asJSON := jsonFlag(f)
		f.configFlag()
		return func(ctx context.Context, args []string) error {
			who, err := oneArg(args, "the user's ID or e-mail address")
			if err != nil {
				return err
			}
			return withUsers(ctx, *database, func(users *directory.Directory) error {
				u, err := findUser(ctx, users, who)
				if err != nil {
					return err
				}
				if u, err = users.Update(ctx, u.ID, directory.Change{Disabled: &disabled, Actor: "operator"}); err != nil {
					return err
				}
				p := newPrinter(a)
				switch {
				case bool(*asJSON):
					return p.json(toUserJSON(u))
				case disabled:
					p.printf("%s is disabled; all sessions are ended.\n", printable(u.Email))
				default:
					p.printf("%s is enabled.\n", printable(u.Email))
				}
				return nil
			})
		}
	}
}

func findUser(ctx context.Context, users *directory.Directory, who string) (directory.User, error) {
	find := users.Get
	if strings.Contains(who, "@") {
		find = users.ByEmail
	}
	u, err := find(ctx, who)
	if errors.Is(err, counterfoil.ErrNotFound) {
		return u, fmt.Errorf("there is no user %q: see counterfoil user list", who)
	}
	return u, flagError(err)
}
