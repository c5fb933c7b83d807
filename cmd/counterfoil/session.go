package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
)

func sessionCommand() *command {
	return &command{
		name:  "session",
		short: "Sessions: list, end, explain",
		children: []*command{
			{
				name:  "list",
				short: "List sessions, newest first",
				examples: []string{
					"counterfoil session list --subject 3f9KbT0qYxWm2LrDsVnH8cZa",
					"counterfoil session list --active --limit 20 --json",
				},
				setup: sessionList,
			},
			{
				name:  "revoke",
				args:  "SID | --subject SUBJECT",
				short: "End one session, or all of a subject",
				long: `From the moment this returns no access token is minted for the session. Tokens
that are out already end within their lifetime (60 s by default).
Ending an ended session is no error.`,
				examples: []string{
					"counterfoil session revoke 3fQ0y8Zc1VbNmKjHgFdSaPoI",
					"counterfoil session revoke --subject user-42 --reason stolen_device",
					"counterfoil session revoke --subject user-42 --except 3fQ0y8Zc1VbNmKjHgFdSaPoI",
				},
				setup: sessionRevoke,
			},
			{
				name:     "why",
				args:     "SID",
				short:    "Say why a session ended, or why it goes on",
				examples: []string{"counterfoil session why 3fQ0y8Zc1VbNmKjHgFdSaPoI"},
				setup:    sessionWhy,
			},
		},
	}
}

// sessionJSON is a session as the HTTP API shows it.
type sessionJSON struct {
	SID           string     `json:"sid"`
	Subject       string     `json:"subject"`
	ClientID      string     `json:"client_id"`
	Status        string     `json:"status"`
	CreatedAt     *int64     `json:"created_at"`
	LastActiveAt  *int64     `json:"last_active_at"`
	IdleExpiresAt *int64     `json:"idle_expires_at"`
	ExpiresAt     *int64     `json:"expires_at"`
	AuthTime      *int64     `json:"auth_time"`
	AMR           []string   `json:"amr"`
	Device        deviceJSON `json:"device"`
	End           *endJSON   `json:"end,omitempty"`
}

type deviceJSON struct {
	UserAgent string `json:"user_agent"`
	IP        string `json:"ip"`
}

type endJSON struct {
	Reason string `json:"reason"`
	Actor  string `json:"actor,omitempty"`
	At     *int64 `json:"at"`
}

func toSessionJSON(s *counterfoil.Session, now time.Time) sessionJSON {
	out := sessionJSON{
		SID: s.ID, Subject: s.Subject, ClientID: s.ClientID, Status: string(s.Status(now)),
		CreatedAt: unix(s.CreatedAt), LastActiveAt: unix(s.LastActiveAt), IdleExpiresAt: unix(s.IdleExpiresAt()),
		ExpiresAt: unix(s.ExpiresAt), AuthTime: unix(s.AuthTime), AMR: s.Methods,
		Device: deviceJSON{s.Device.UserAgent, s.Device.IP},
	}
	if out.AMR == nil {
		out.AMR = []string{}
	}
	if s.End != nil {
		out.End = &endJSON{string(s.End.Reason), s.End.Actor, unix(s.End.At)}
	}
	return out
}

func sessionList(a *app, f *flags) func(context.Context, []string) error {
	var subject, after textValue
	var active boolValue
	limit := intValue(100)
	f.add(&subject, "subject", "SUBJECT", "only sessions of this user")
	f.add(&active, "active", "", "only sessions that go on")
	f.add(&limit, "limit", "N", "at most so many, 1 to 1000")
	f.add(&after, "after", "CURSOR", "the page after the one that ended with CURSOR")
	database := storesFlags(f)
	asJSON := jsonFlag(f)
	f.configFlag()
	return func(ctx context.Context, args []string) error {
		if err := noArgs(args); err != nil {
			return err
		}
		if limit < 1 || limit > 1000 {
			return usagef("--limit %d: want 1 to 1000", limit)
		}
		return withOperator(ctx, *database, "", func(o *operator) error {
			query := counterfoil.ListQuery{Subject: string(subject), After: string(after), Limit: int(limit)}
			if active {
				query.ActiveAt = o.Now()
			}
			sessions, next, err := o.Sessions(ctx, query)
			if err != nil {
				return flagError(err)
			}
			p := newPrinter(a)
			if *asJSON {
				return p.json(sessionPage(sessions, next, p.now))
			}
			if len(sessions) == 0 {
				fmt.Fprintln(a.stderr, "There are no such sessions.")
				return nil
			}
			p.table(sessionRows(p, sessions))
			if next != "" {
				fmt.Fprintf(a.stderr, "More with --after %s\n", next)
			}
			return nil
		})
	}
}

func sessionPage(sessions []counterfoil.Session, next string, now time.Time) map[string]any {
	list := make([]sessionJSON, 0, len(sessions))
	for i := range sessions {
		list = append(list, toSessionJSON(&sessions[i], now))
	}
	page := map[string]any{"sessions": list}
	if next != "" {
		page["next"] = next
	}
	return page
}

func sessionRows(p *printer, sessions []counterfoil.Session) [][]cell {
	rows := [][]cell{{text("SID"), text("SUBJECT"), text("STATUS"), text("STARTED"), text("LAST ACTIVE"), text("ENDS"), text("IP"), text("DEVICE")}}
	for i := range sessions {
		s := &sessions[i]
		ends := p.ago(s.IdleExpiresAt())
		if s.End != nil {
			ends = p.ago(s.End.At) + ": " + string(s.End.Reason)
		}
		rows = append(rows, []cell{
			text(s.ID), text(s.Subject), statusCell(s.Status(p.now)), text(p.ago(s.CreatedAt)),
			text(p.ago(s.LastActiveAt)), text(ends), text(s.Device.IP), text(s.Device.UserAgent),
		})
	}
	return rows
}

func statusCell(s counterfoil.Status) cell {
	switch s {
	case counterfoil.StatusActive:
		return styled(good, string(s))
	case counterfoil.StatusExpired:
		return styled(warning, string(s))
	}
	return styled(bad, string(s))
}

func sessionRevoke(a *app, f *flags) func(context.Context, []string) error {
	var subject, except textValue
	reason, by := textValue(counterfoil.Revoked), textValue("operator")
	f.add(&subject, "subject", "SUBJECT", "end all sessions of this user")
	f.add(&except, "except", "SID", "with --subject: all but this one")
	f.add(&reason, "reason", "WORD", "why, in lower-case words joined by _")
	f.add(&by, "by", "NAME", "who ends it")
	database := storesFlags(f)
	asJSON := jsonFlag(f)
	f.configFlag()
	return func(ctx context.Context, args []string) error {
		var sid string
		switch {
		case subject == "" && except != "":
			return usagef("--except wants --subject")
		case subject != "":
			if err := noArgs(args); err != nil {
				return usagef("give a session's SID or --subject, not both")
			}
		default:
			var err error
			if sid, err = oneArg(args, "the session's SID, or --subject,"); err != nil {
				return err
			}
		}
		return withOperator(ctx, *database, "", func(o *operator) error {
			p := newPrinter(a)
			why := counterfoil.Reason(reason)
			if subject != "" {
				opts := []counterfoil.RevokeOption{counterfoil.By(string(by))}
				said := fmt.Sprintf("All sessions of %s are ended.\n", printable(string(subject)))
				if except != "" {
					opts = append(opts, counterfoil.Except(string(except)))
					said = fmt.Sprintf("All sessions of %s but %s are ended.\n", printable(string(subject)), printable(string(except)))
				}
				if err := o.RevokeSubject(ctx, string(subject), why, opts...); err != nil {
					return flagError(err)
				}
				if *asJSON {
					return p.json(map[string]any{"subject": string(subject), "status": "revoked"})
				}
				p.printf("%s", said)
				return nil
			}
			err := o.RevokeSession(ctx, sid, why, counterfoil.By(string(by)))
			if errors.Is(err, counterfoil.ErrNotFound) {
				return noSuchSession(sid)
			}
			if err != nil {
				return flagError(err)
			}
			s, err := o.Session(ctx, sid)
			if err != nil {
				return err
			}
			if *asJSON {
				return p.json(toSessionJSON(&s, p.now))
			}
			p.printf("%s\n", ended(p, &s))
			return nil
		})
	}
}

func noSuchSession(sid string) error {
	return fmt.Errorf("there is no session %q: a SID has 24 letters and digits, and ended sessions are deleted after 30 days", shortened(sid))
}
