package httpapi

import (
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
)

// session is a session as the wire shows it. Times are Unix seconds.
type session struct {
	SID           string   `json:"sid" doc:"The session's public id. Knowing it grants nothing."`
	Subject       string   `json:"subject" doc:"The user's id."`
	ClientID      string   `json:"client_id" doc:"The application."`
	Status        string   `json:"status" enum:"active,revoked,expired"`
	CreatedAt     unixTime `json:"created_at"`
	LastActiveAt  unixTime `json:"last_active_at" doc:"Last use by the user; may lag by a few minutes."`
	IdleExpiresAt unixTime `json:"idle_expires_at" doc:"When it expires unless it is used before."`
	ExpiresAt     unixTime `json:"expires_at" doc:"When it expires whatever happens."`
	AuthTime      unixTime `json:"auth_time" doc:"When the user last proved who they are."`
	AMR           []string `json:"amr" doc:"How (RFC 8176)."`
	Device        device   `json:"device"`
	Current       bool     `json:"current,omitempty" doc:"It is the session that asks."`
	End           *end     `json:"end,omitempty" doc:"Why it was ended; absent while nobody ended it."`
}

type device struct {
	UserAgent string `json:"user_agent" doc:"At most 256 bytes."`
	IP        string `json:"ip" doc:"The address of the user."`
	Bound     bool   `json:"bound,omitempty" doc:"The session is bound to a key in this device: its cookie is no good elsewhere."`
}

type end struct {
	Reason string   `json:"reason" doc:"Lower-case words joined by underscores, such as signed_out."`
	Actor  string   `json:"actor" doc:"Who ended it: user, or the id of an API key."`
	At     unixTime `json:"at"`
}

func unix(t time.Time) unixTime {
	if t.IsZero() {
		return 0
	}
	return unixTime(t.Unix())
}

func shownSession(s *counterfoil.Session, now time.Time, current string) session {
	out := session{
		SID: s.ID, Subject: s.Subject, ClientID: s.ClientID, Status: string(s.Status(now)),
		CreatedAt: unix(s.CreatedAt), LastActiveAt: unix(s.LastActiveAt),
		IdleExpiresAt: unix(s.IdleExpiresAt()), ExpiresAt: unix(s.ExpiresAt),
		AuthTime: unix(s.AuthTime), AMR: list(s.Methods),
		Device:  device{s.Device.UserAgent, s.Device.IP, s.Binding != nil},
		Current: s.ID == current,
	}
	if s.End != nil {
		out.End = &end{string(s.End.Reason), s.End.Actor, unix(s.End.At)}
	}
	return out
}

// list makes an empty array of nil.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// sessionPage is one page of a list.
type sessionPage struct {
	Sessions []session `json:"sessions" doc:"Newest first."`
	Next     string    `json:"next,omitempty" doc:"The parameter after of the next page; absent at the end."`
}

// grant is both credentials of a sign-in, or the fresh access token of a refresh.
type grant struct {
	AccessToken  string  `json:"access_token" doc:"The JWT that carries each request. Keep it in memory only."`
	TokenType    string  `json:"token_type" enum:"Bearer"`
	ExpiresIn    int64   `json:"expires_in" doc:"Seconds until the access token expires."`
	RefreshAfter int64   `json:"refresh_after" doc:"Seconds after which to ask for the next one; spread, so that clients do not come together."`
	ServerTime   int64   `json:"server_time" doc:"The authority's clock, Unix seconds."`
	Degraded     bool    `json:"degraded,omitempty" doc:"The authority was cut off from its store and minted from a copy of the session; some routes refuse such a token."`
	Session      session `json:"session"`
	SessionToken string  `json:"session_token,omitempty" doc:"The secret that names the session; only where it is new and no cookie carries it."`
}

func shownGrant(g *counterfoil.Grant) grant {
	return grant{
		AccessToken: g.AccessToken, TokenType: "Bearer",
		ExpiresIn: int64(g.ExpiresIn / time.Second), RefreshAfter: max(1, int64(g.RefreshAfter/time.Second)),
		ServerTime: g.ServerTime.Unix(), Degraded: g.Degraded, Session: shownSession(&g.Session, g.ServerTime, g.Session.ID),
	}
}

// user is a user of the directory.
type user struct {
	ID        string   `json:"id" doc:"The subject of the user's sessions."`
	Email     string   `json:"email"`
	Roles     []string `json:"roles"`
	Scope     []string `json:"scope"`
	Disabled  bool     `json:"disabled" doc:"No session may start."`
	CreatedAt unixTime `json:"created_at"`
	UpdatedAt unixTime `json:"updated_at"`
}

type userPage struct {
	Users []user `json:"users" doc:"By e-mail address."`
	Next  string `json:"next,omitempty" doc:"The parameter after of the next page; absent at the end."`
}

func shownUser(u *directory.User) user {
	return user{
		ID: u.ID, Email: u.Email, Roles: list(u.Rights.Roles), Scope: list(u.Rights.Scope),
		Disabled: u.Rights.Disabled, CreatedAt: unix(u.CreatedAt), UpdatedAt: unix(u.UpdatedAt),
	}
}
