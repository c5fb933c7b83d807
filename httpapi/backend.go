package httpapi

import (
	"errors"
	"net/http"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

func backendRoutes(a *api) []route {
	routes := []route{
		handle(route{
			method: http.MethodPost, path: "/sessions", name: "createSession", scope: counterfoil.ScopeSessions, status: http.StatusCreated,
			summary: "Start a session for a user whom your backend has authenticated",
			detail:  "Read the epoch before you check the credential, and send it: then a sign-in never outlives a password change that came between.",
			faults:  []fault{faultConflict},
		}, createSession),
		handle(route{
			method: http.MethodPost, path: "/sessions/authenticate", name: "authenticateSession", scope: counterfoil.ScopeSessions,
			summary: "Check a session token or an access token against its session, now",
			detail:  "A session token always gives a fresh access token. An access token gives one when it has expired (at most ten minutes ago), is stale, or is older than max_token_age. Problems about the token name it in field; without field they are about the API key.",
			faults:  append(append([]fault{faultToken, {http.StatusUnauthorized, verify.CodeTokenExpired}, {http.StatusUnauthorized, verify.CodeTokenRevoked}, faultUnproved}, faultsEnded...), faultInput),
		}, authenticateSession),
		handle(route{
			method: http.MethodGet, path: "/sessions/{sid}", name: "readSession", scope: counterfoil.ScopeSessions,
			summary: "One session, also after its end", faults: []fault{faultNotFound},
		}, readSession),
		handle(route{
			method: http.MethodPatch, path: "/sessions/{sid}", name: "changeSession", scope: counterfoil.ScopeSessions,
			summary: "Change what the session's access tokens say, or how long it lives",
			detail:  "Absent members stay. null gives roles, scope or claims back to the user's own. Access tokens minted before are answered with token_stale.",
			faults:  []fault{faultNotFound, faultConflict},
		}, changeSession),
		handle(route{
			method: http.MethodDelete, path: "/sessions/{sid}", name: "endSession", scope: counterfoil.ScopeSessions,
			summary: "End a session", detail: "Answers 204 also when it had ended already.", faults: []fault{faultNotFound},
		}, endSession),
		handle(route{
			method: http.MethodGet, path: "/users/{id}/sessions", name: "listUserSessions", scope: counterfoil.ScopeSessions,
			summary: "The sessions of a user",
		}, userSessions),
		handle(route{
			method: http.MethodDelete, path: "/users/{id}/sessions", name: "endUserSessions", scope: counterfoil.ScopeSessions,
			summary: "End all sessions of a user, in all applications",
		}, endUserSessions),
		handle(route{
			method: http.MethodGet, path: "/users/{id}/epoch", name: "readEpoch", scope: counterfoil.ScopeSessions,
			summary: "The user's epoch, to be read before a credential is checked",
		}, readEpoch),
		handle(route{
			method: http.MethodPost, path: "/users/{id}/rights-changed", name: "rightsChanged", scope: counterfoil.ScopeSessions,
			summary: "Make the user's access tokens stale",
			detail:  "Call it after the new rights are committed. The next refresh carries them; nobody signs in again.",
		}, rightsChanged),
	}
	routes = append(routes, feedRoutes()...)
	if a.users != nil {
		routes = append(routes, userRoutes()...)
	}
	for i := range routes {
		routes[i].tag, routes[i].credential = "backend", apiKey
	}
	return routes
}

type deviceInput struct {
	UserAgent string `json:"user_agent" doc:"The User-Agent that the user's browser sent you."`
	IP        string `json:"ip" doc:"The user's address."`
}

type createSessionRequest struct {
	Subject  string         `json:"subject" required:"true" doc:"The user's id: 1 to 255 bytes, never given to another user."`
	Epoch    *epoch         `json:"epoch" doc:"What GET /users/{id}/epoch said before the credential was checked."`
	Claims   map[string]any `json:"claims" doc:"Your own claims, into each access token: at most 1 KB, no registered names, no secrets."`
	Roles    []string       `json:"roles"`
	Scope    []string       `json:"scope" doc:"Scopes, one a string."`
	AMR      []string       `json:"amr" doc:"How the user authenticated (RFC 8176), for instance [\"pwd\"]."`
	AuthTime *unixTime      `json:"auth_time" doc:"When; default now."`
	MaxAge   *seconds       `json:"max_age" doc:"How long the session lives; default the configured time."`
	Device   *deviceInput   `json:"device"`
	ClientID string         `json:"client_id" doc:"The API key's application, if you like to say it."`
}

// newSession is a grant with the session token, which is shown once.
type newSession struct {
	grant
	SetCookie string `json:"set_cookie" doc:"The value of a Set-Cookie header that puts the session token into the user's browser."`
}

func createSession(c *call, in *createSessionRequest) (*newSession, error) {
	if in.ClientID != "" && in.ClientID != c.key.ClientID {
		return nil, &counterfoil.FieldError{Field: "client_id", Message: "must be " + c.key.ClientID + ", the application of this API key"}
	}
	request := counterfoil.SignIn{
		Subject: in.Subject, ClientID: c.key.ClientID, Methods: in.AMR, AuthTime: in.AuthTime.time(),
		Absolute: in.MaxAge.duration(), Roles: in.Roles, Scope: in.Scope, Extra: in.Claims,
		Device: &counterfoil.Device{},
	}
	if in.Epoch != nil {
		request.Epoch = int64(*in.Epoch)
	}
	if in.Device != nil {
		request.Device = &counterfoil.Device{UserAgent: in.Device.UserAgent, IP: in.Device.IP}
	}
	g, err := c.auth.StartSession(c.ctx(), request)
	if err != nil {
		return nil, err
	}
	out := &newSession{grant: shownGrant(g), SetCookie: g.Cookie().String()}
	out.SessionToken = g.SessionToken.Reveal()
	out.Session.Current = false
	return out, nil
}

type authenticateRequest struct {
	SessionToken password `json:"session_token" doc:"Either this …"`
	AccessToken  password `json:"access_token" doc:"… or this."`
	BoundCookie  password `json:"bound_cookie" doc:"The value of the cookie __Host-counterfoil-bound, where the browser sent one: a device-bound session gives no access token without."`
	MaxTokenAge  *seconds `json:"max_token_age" doc:"With access_token: the oldest that will do without a fresh one."`
}

// authenticated is the session, and a fresh access token where one was due.
type authenticated struct {
	Session      session `json:"session"`
	AccessToken  string  `json:"access_token,omitempty" doc:"A fresh access token; absent when the given one is good."`
	TokenType    string  `json:"token_type,omitempty" enum:"Bearer"`
	ExpiresIn    int64   `json:"expires_in,omitempty" doc:"Seconds until the fresh access token expires."`
	RefreshAfter int64   `json:"refresh_after,omitempty" doc:"Seconds after which to ask again."`
	ServerTime   int64   `json:"server_time" doc:"The authority's clock, Unix seconds."`
	Degraded     bool    `json:"degraded,omitempty" doc:"The authority was cut off from its store and answers from a copy of the session, for a session token only."`
}

func authenticateSession(c *call, in *authenticateRequest) (*authenticated, error) {
	var g *counterfoil.Grant
	var err error
	var field string
	switch {
	case (in.SessionToken == "") == (in.AccessToken == ""):
		return nil, &counterfoil.FieldError{Field: "session_token", Message: "is required unless access_token is given; not both"}
	case in.SessionToken != "":
		if in.MaxTokenAge != nil {
			return nil, &counterfoil.FieldError{Field: "max_token_age", Message: "goes with access_token: a session token always gives a fresh one"}
		}
		field = "session_token"
		g, err = c.auth.Refresh(c.ctx(), counterfoil.JoinBound(string(in.SessionToken), string(in.BoundCookie)), counterfoil.RefreshRequest{ClientID: c.key.ClientID})
	default:
		field = "access_token"
		g, err = c.auth.Exchange(c.ctx(), string(in.AccessToken), counterfoil.ExchangeRequest{
			ClientID: c.key.ClientID, MaxTokenAge: in.MaxTokenAge.duration(), BoundCookie: string(in.BoundCookie),
		})
	}
	if errors.Is(err, verify.ErrProofRequired) {
		field = "bound_cookie"
	}
	if err != nil {
		return nil, about(field, err)
	}
	shown := shownGrant(g)
	shown.Session.Current = false
	out := &authenticated{Session: shown.Session, ServerTime: shown.ServerTime, Degraded: shown.Degraded}
	if g.AccessToken != "" {
		out.AccessToken, out.TokenType = shown.AccessToken, shown.TokenType
		out.ExpiresIn, out.RefreshAfter = shown.ExpiresIn, shown.RefreshAfter
	}
	return out, nil
}

// about says which member a refusal is about, so that it is not taken for one
// of the API key.
func about(field string, err error) error {
	var refused *verify.Error
	if !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
		return err
	}
	told := *refused
	told.Field = field
	return &told
}

type sessionRequest struct {
	SID string `path:"sid" doc:"The session's id."`
}

// owned reads a session of the API key's application.
func (c *call) owned(sid string) (counterfoil.Session, error) {
	s, err := c.auth.Session(c.ctx(), sid)
	if errors.Is(err, counterfoil.ErrNotFound) || err == nil && s.ClientID != c.key.ClientID {
		return counterfoil.Session{}, errNoSession
	}
	return s, err
}

// alone reports whether there is one application only, whose all sessions are.
func (c *call) alone() bool { return len(c.auth.Config().MoreClientIDs) == 0 }

func readSession(c *call, in *sessionRequest) (session, error) {
	s, err := c.owned(in.SID)
	if err != nil {
		return session{}, err
	}
	return shownSession(&s, c.auth.Now(), ""), nil
}

type changeSessionRequest struct {
	SID    string                 `path:"sid" doc:"The session's id."`
	Roles  change[[]string]       `json:"roles" doc:"null: those of the user."`
	Scope  change[[]string]       `json:"scope" doc:"null: those of the user."`
	Claims change[map[string]any] `json:"claims" doc:"null: none."`
	MaxAge *seconds               `json:"max_age" doc:"Moves the absolute expiry to this long after the session's start."`
}

func changeSession(c *call, in *changeSessionRequest) (session, error) {
	before, err := c.owned(in.SID)
	if err != nil {
		return session{}, err
	}
	if before.Status(c.auth.Now()) != counterfoil.StatusActive {
		return session{}, &conflictError{"sid", "The session has ended."}
	}
	what := counterfoil.SessionChange{Roles: given(in.Roles), Scope: given(in.Scope), Extra: given(in.Claims)}
	if in.MaxAge != nil {
		age := in.MaxAge.duration()
		what.MaxAge = &age
	}
	if what == (counterfoil.SessionChange{}) {
		return session{}, &counterfoil.FieldError{Field: "body", Message: "changes nothing: give roles, scope, claims or max_age"}
	}
	s, err := c.auth.ChangeSession(c.ctx(), in.SID, what)
	if err != nil {
		return session{}, err
	}
	return shownSession(&s, c.auth.Now(), ""), nil
}

// given is nil when the member was absent, and points to nil when it was null.
func given[T any](c change[T]) *T {
	switch {
	case !c.given:
		return nil
	case c.value == nil:
		return new(T)
	}
	return c.value
}

type endSessionRequest struct {
	SID    string `path:"sid" doc:"The session's id."`
	Reason string `query:"reason" doc:"Why, told to the user's device: lower-case words joined by underscores; default revoked."`
}

func reason(text string) counterfoil.Reason {
	if text == "" {
		return counterfoil.Revoked
	}
	return counterfoil.Reason(text)
}

func endSession(c *call, in *endSessionRequest) (none, error) {
	if !c.alone() {
		if _, err := c.owned(in.SID); err != nil {
			return none{}, err
		}
	}
	err := c.auth.RevokeSession(c.ctx(), in.SID, reason(in.Reason), counterfoil.By(c.key.ID))
	if errors.Is(err, counterfoil.ErrNotFound) {
		err = errNoSession
	}
	return none{}, err
}

type userSessionsRequest struct {
	ID     string `path:"id" doc:"The user's id, the subject of the sessions."`
	Status string `query:"status" enum:"active,all" doc:"Default active; all shows ended and expired ones too, as long as they are kept."`
	After  string `query:"after" doc:"The next of the page before."`
	Limit  int    `query:"limit" doc:"Sessions a page, 1 to 1000; default 100."`
}

func userSessions(c *call, in *userSessionsRequest) (*sessionPage, error) {
	q := counterfoil.ListQuery{Subject: in.ID, After: in.After, Limit: in.Limit}
	if in.Status != "all" {
		q.ActiveAt = c.auth.Now()
	}
	if !c.alone() {
		q.ClientID = c.key.ClientID
	}
	page, err := c.page(q, "")
	return page, ofUser(err)
}

type endUserSessionsRequest struct {
	ID     string `path:"id" doc:"The user's id."`
	Except string `query:"except" doc:"The id of one session that goes on: where the user changed the password, for instance."`
	Reason string `query:"reason" doc:"Why, told to the user's devices: lower-case words joined by underscores; default revoked."`
}

func endUserSessions(c *call, in *endUserSessionsRequest) (none, error) {
	opts := []counterfoil.RevokeOption{counterfoil.By(c.key.ID)}
	if in.Except != "" {
		opts = append(opts, counterfoil.Except(in.Except))
	}
	return none{}, ofUser(c.auth.RevokeSubject(c.ctx(), in.ID, reason(in.Reason), opts...))
}

type userRequest struct {
	ID string `path:"id" doc:"The user's id."`
}

type epochAnswer struct {
	Epoch int64 `json:"epoch"`
}

func readEpoch(c *call, in *userRequest) (epochAnswer, error) {
	n, err := c.auth.Epoch(c.ctx(), in.ID)
	return epochAnswer{n}, ofUser(err)
}

func rightsChanged(c *call, in *userRequest) (none, error) {
	return none{}, ofUser(c.auth.RightsChanged(c.ctx(), in.ID))
}

// ofUser names the subject as the path does.
func ofUser(err error) error {
	if field := (*counterfoil.FieldError)(nil); errors.As(err, &field) && field.Field == "subject" {
		return &counterfoil.FieldError{Field: "id", Message: field.Message}
	}
	return err
}
