package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
)

func sessionWhy(a *app, f *flags) func(context.Context, []string) error {
	database := storesFlags(f)
	asJSON := jsonFlag(f)
	f.configFlag()
	return func(ctx context.Context, args []string) error {
		sid, err := oneArg(args, "the session's SID")
		if err != nil {
			return err
		}
		return withOperator(ctx, *database, "", func(o *operator) error {
			s, err := o.Session(ctx, sid)
			if errors.Is(err, counterfoil.ErrNotFound) {
				return noSuchSession(sid)
			}
			if err != nil {
				return err
			}
			p := newPrinter(a)
			if *asJSON {
				return p.json(toSessionJSON(&s, p.now))
			}
			explain(p, &s)
			return nil
		})
	}
}

// explain tells a session's life in words.
func explain(p *printer, s *counterfoil.Session) {
	status := statusCell(s.Status(p.now))
	p.printf("Session %s of %s is %s.\n\n", s.ID, printable(s.Subject), p.paint(status.style, status.text))
	p.printf("%s\n", started(p, s))
	switch s.Status(p.now) {
	case counterfoil.StatusRevoked:
		p.printf("%s\n", ended(p, s))
	case counterfoil.StatusExpired:
		p.printf("%s\n", expired(p, s))
	default:
		p.printf("Nobody has ended it. It was last used %s.\n", p.when(s.LastActiveAt))
		if s.IdleExpiresAt().Before(s.ExpiresAt) {
			p.printf("Unless it is used again it expires %s: it ends when unused for %s.\n", p.when(s.IdleExpiresAt()), roughly(s.IdleTimeout))
		}
		p.printf("It ends at the latest %s.\n", p.when(s.ExpiresAt))
	}
	if s.ParentID != "" {
		p.printf("It was derived from session %s and ends with it.\n", s.ParentID)
	}
}

func started(p *printer, s *counterfoil.Session) string {
	var b strings.Builder
	fmt.Fprintf(&b, "It was started %s", p.when(s.CreatedAt))
	if len(s.Methods) > 0 {
		fmt.Fprintf(&b, " with %s", methodWords(s.Methods))
	}
	if s.Device.IP != "" {
		fmt.Fprintf(&b, " from %s", printable(s.Device.IP))
	}
	if s.Device.UserAgent != "" {
		fmt.Fprintf(&b, ", %s", printable(s.Device.UserAgent))
	}
	b.WriteString(".")
	if s.AuthTime.Sub(s.CreatedAt) > time.Second {
		fmt.Fprintf(&b, "\nThe user proved who they are again %s.", p.when(s.AuthTime))
	}
	return b.String()
}

func ended(p *printer, s *counterfoil.Session) string {
	actor := printable(s.End.Actor)
	if actor == "" {
		actor = "somebody unnamed"
	}
	told := fmt.Sprintf("It was ended %s by %s: %s", p.when(s.End.At), actor, printable(string(s.End.Reason)))
	if words := reasonWords[s.End.Reason]; words != "" {
		told += ", " + words
	}
	return told + "."
}

func expired(p *printer, s *counterfoil.Session) string {
	at := s.IdleExpiresAt()
	if at.Before(s.ExpiresAt) {
		return fmt.Sprintf("It expired %s: it was last used %s, and ends when unused for %s.",
			p.when(at), p.when(s.LastActiveAt), roughly(s.IdleTimeout))
	}
	return fmt.Sprintf("It expired %s: it had reached its absolute end, %s after it was started.", p.when(at), roughly(s.ExpiresAt.Sub(s.CreatedAt)))
}

// reasonWords say what our own reasons mean.
var reasonWords = map[counterfoil.Reason]string{
	counterfoil.SignedOut:           "the user signed out on this device",
	counterfoil.SignedOutEverywhere: "the user signed out from another device",
	counterfoil.PasswordChanged:     "the password was changed on another device",
	counterfoil.PasswordReset:       "the password was reset",
	counterfoil.Disabled:            "the account was disabled",
	counterfoil.Deleted:             "the account was deleted",
	counterfoil.Revoked:             "an operator or a backend ended it",
}

// methodWords say the amr values of RFC 8176 in words.
func methodWords(methods []string) string {
	words := map[string]string{
		"pwd": "a password", "hwk": "a hardware key", "swk": "a software key", "otp": "a one-time code",
		"sms": "a text message", "mfa": "several factors", "face": "a face", "fpt": "a fingerprint", "pin": "a PIN", "user": "presence",
	}
	var said []string
	for _, m := range methods {
		if w := words[m]; w != "" {
			m = w
		}
		said = append(said, printable(m))
	}
	return strings.Join(said, " and ")
}
