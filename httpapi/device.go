package httpapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/verify"
)

// replaced is the reason of a session whose browser signed in anew.
const replaced counterfoil.Reason = "replaced"

const actorUser = "user"

func deviceRoutes(a *api) []route {
	routes := []route{
		handle(route{
			method: http.MethodPost, path: "/refresh", name: "refresh", credential: userSession,
			summary: "Trade the session for a fresh access token",
			detail:  "Any number of refreshes may run at once; nothing is used up. Only session_revoked, session_expired and session_unknown end the session; after any other answer, keep it and try again.",
		}, refresh),
		handle(route{
			method: http.MethodGet, path: "/session", name: "getSession", credential: userSession,
			summary: "This session",
		}, thisSession),
		handle(route{
			method: http.MethodGet, path: "/sessions", name: "listSessions", credential: userSession,
			summary: "The user's active sessions", detail: "The one that asks is marked with current.",
		}, ownSessions),
		handle(route{
			method: http.MethodPost, path: "/sign-out", name: "signOut", credential: userSession,
			summary: "End this session, another one, the others or all",
			detail:  "The session is ended first, then the cookie is cleared. Ending this session answers 204 also when it had ended already.",
			faults:  []fault{faultNotFound},
		}, signOut),
		watchRoute(),
	}
	if a.users != nil {
		routes = append(routes, passwordRoutes()...)
		if a.users.PasskeysOn() {
			routes = append(routes, passkeyRoutes()...)
		}
	}
	for i := range routes {
		routes[i].tag, routes[i].cookie, routes[i].sharing = "device", true, trustedOrigins
	}
	return append(routes, dbscRoutes()...)
}

func passwordRoutes() []route {
	return []route{
		handle(route{
			method: http.MethodPost, path: "/sign-up", name: "signUp", credential: public, status: http.StatusCreated,
			summary: "Make a user and sign them in",
			faults:  []fault{faultConflict, faultRate},
		}, signUp),
		handle(route{
			method: http.MethodPost, path: "/sign-in", name: "signIn", credential: public,
			summary: "Start a session with e-mail address and password",
			detail:  "A session whose cookie the request brings is ended, since its cookie is replaced.",
			faults:  []fault{faultCredentials, faultRate},
		}, signIn),
		handle(route{
			method: http.MethodPost, path: "/password", name: "changePassword", credential: userSession,
			summary: "Change the password",
			detail:  "Ends the user's other sessions and replaces the session token of this one.",
			faults:  []fault{faultCredentials, faultRate, faultNotFound},
		}, changePassword),
		handle(route{
			method: http.MethodPost, path: "/step-up", name: "stepUp", credential: userSession,
			summary: "Prove again who the user is, with the password or a passkey",
			detail:  "auth_time becomes now, and the session token is replaced.",
			faults:  []fault{faultCredentials, faultRate, faultNotFound},
		}, stepUp),
		handle(route{
			method: http.MethodPost, path: "/step-up/begin", name: "beginStepUp", credential: userSession,
			summary: "The ways in which the user can step up", detail: "Begins it for a passkey, where the user has one. " + beginning,
			faults: []fault{faultCredentials, faultRate, faultNotFound},
		}, beginStepUp),
		handle(route{
			method: http.MethodPost, path: "/password-reset", name: "resetPassword", credential: public,
			summary: "Set a new password with a one-time token",
			detail:  "Ends all sessions of the user, removes their passkeys, and signs nobody in.",
			faults:  []fault{faultRate},
		}, resetPassword),
	}
}

type signInRequest struct {
	Email     string   `json:"email" required:"true"`
	Password  password `json:"password" required:"true"`
	ClientID  string   `json:"client_id" doc:"The application; default the configured one."`
	Transport string   `json:"transport" enum:"cookie,body" doc:"How the session token travels: in a cookie (default), or in the body as session_token, for native apps."`
}

const inBody = "body"

func (c *call) signIn(in *signInRequest) (directory.SignIn, error) {
	client := in.ClientID
	if client == "" {
		client = c.clients[0]
	}
	// Before a user is made: a sign-up that fails must leave none.
	if !slices.Contains(c.clients, client) {
		return directory.SignIn{}, &counterfoil.FieldError{Field: "client_id", Message: "must be one of " + strings.Join(c.clients, ", ")}
	}
	return directory.SignIn{Email: in.Email, Password: string(in.Password), Request: c.r, ClientID: client}, nil
}

func signUp(c *call, in *signInRequest) (*grant, error) {
	request, err := c.signIn(in)
	if err != nil {
		return nil, err
	}
	g, _, err := c.users.SignUp(c.ctx(), request)
	if err != nil {
		return nil, err
	}
	return c.started(g, in.Transport), nil
}

func signIn(c *call, in *signInRequest) (*grant, error) {
	request, err := c.signIn(in)
	if err != nil {
		return nil, err
	}
	g, err := c.users.SignIn(c.ctx(), request)
	if err != nil {
		return nil, err
	}
	return c.started(g, in.Transport), nil
}

func (c *call) started(g *counterfoil.Grant, transport string) *grant {
	if transport != inBody {
		c.endReplaced(g.Session.ClientID)
		c.auth.DropBoundCookie(c.w, c.r, g.Session.ClientID)
	}
	return c.granted(g, transport == inBody)
}

// endReplaced ends the session whose cookie the new one overwrites: nobody
// could sign it out any more. What is offered is ended, never taken up.
func (c *call) endReplaced(client string) {
	token, of, err := c.sessionCookie()
	if err != nil || of != client {
		return
	}
	ctx := context.WithoutCancel(c.ctx())
	old, err := c.auth.AuthenticateToEnd(ctx, token)
	if err == nil {
		err = c.auth.RevokeSession(ctx, old.ID, replaced, counterfoil.By(actorUser))
	}
	if ended := (*counterfoil.EndedError)(nil); err != nil && !errors.As(err, &ended) {
		c.log.WarnContext(ctx, "the session before could not be ended; it goes on until it expires",
			"request_id", requestID(c.w), "error", redact(err.Error()))
	}
}

// granted shows a grant. A new session token goes where the old one came from:
// into the body or into the cookie.
func (c *call) granted(g *counterfoil.Grant, body bool) *grant {
	out := shownGrant(g)
	if body {
		out.SessionToken = g.SessionToken.Reveal()
	} else {
		g.SetCookie(c.w)
		c.offerBinding(g)
	}
	return &out
}

type refreshRequest struct {
	Audience    string   `json:"audience" doc:"The service that the access token is for; default the first configured one."`
	Active      *bool    `json:"active" doc:"false: the user did nothing since the last refresh, so the idle expiry stays where it is. Default true."`
	MaxTokenAge *seconds `json:"max_token_age" doc:"The oldest access token that will do. Each answer is fresh, so any value is kept."`
}

func refresh(c *call, in *refreshRequest) (*grant, error) {
	g, err := c.auth.Refresh(c.ctx(), c.token, counterfoil.RefreshRequest{
		Audience: in.Audience, Inactive: in.Active != nil && !*in.Active, ClientID: c.client,
	})
	if err != nil {
		return nil, err
	}
	return c.granted(g, c.client == ""), nil
}

// session is the live session of the request.
func (c *call) session() (counterfoil.Session, error) {
	return c.ofClient(c.auth.Authenticate(c.ctx(), c.token))
}

// ofClient refuses a session that came in another application's cookie.
func (c *call) ofClient(s counterfoil.Session, err error) (counterfoil.Session, error) {
	if err == nil && c.client != "" && s.ClientID != c.client {
		return counterfoil.Session{}, &counterfoil.EndedError{Err: counterfoil.ErrSessionUnknown}
	}
	return s, err
}

// rightCookie refuses a session that came in another application's cookie.
func (c *call) rightCookie() error {
	if c.client == "" || c.alone() {
		return nil
	}
	_, err := c.session()
	return err
}

func thisSession(c *call, _ *struct{}) (session, error) {
	s, err := c.session()
	if err != nil {
		return session{}, err
	}
	return shownSession(&s, c.auth.Now(), s.ID), nil
}

type pageRequest struct {
	After string `query:"after" doc:"The next of the page before."`
	Limit int    `query:"limit" doc:"Sessions a page, 1 to 1000; default 100."`
}

func ownSessions(c *call, in *pageRequest) (*sessionPage, error) {
	s, err := c.session()
	if err != nil {
		return nil, err
	}
	return c.page(counterfoil.ListQuery{Subject: s.Subject, ActiveAt: c.auth.Now(), After: in.After, Limit: in.Limit}, s.ID)
}

func (c *call) page(q counterfoil.ListQuery, current string) (*sessionPage, error) {
	sessions, next, err := c.auth.Sessions(c.ctx(), q)
	if err != nil {
		return nil, err
	}
	now := c.auth.Now()
	page := &sessionPage{Sessions: make([]session, 0, len(sessions)), Next: next}
	for i := range sessions {
		page.Sessions = append(page.Sessions, shownSession(&sessions[i], now, current))
	}
	return page, nil
}

type signOutRequest struct {
	Which string `json:"which" enum:"this,others,all" doc:"Default this."`
	SID   string `json:"sid" doc:"One session of the user, by its id; not together with which."`
}

func signOut(c *call, in *signOutRequest) (none, error) {
	if in.Which != "" && in.SID != "" {
		return none{}, &counterfoil.FieldError{Field: "sid", Message: "cannot be given together with which"}
	}
	s, err := c.session()
	this := in.SID == "" && in.Which != "others" && in.Which != "all" || err == nil && in.SID == s.ID
	if errors.Is(err, verify.ErrProofRequired) {
		// Nobody is kept from ending this one session.
		unproved, failed := c.ofClient(c.auth.AuthenticateToEnd(c.ctx(), c.token))
		if this = this || failed == nil && in.SID == unproved.ID; this {
			s, err = unproved, failed
		}
	}
	if ended := (*counterfoil.EndedError)(nil); this && errors.As(err, &ended) {
		if errors.Is(err, counterfoil.ErrSessionRevoked) && ended.SessionID != "" {
			// Another process ended it: the verifiers of this one may not know yet.
			if err := c.auth.RevokeSession(c.ctx(), ended.SessionID, counterfoil.SignedOut, counterfoil.By(actorUser)); err != nil {
				return none{}, err
			}
		}
		c.clearCookie()
		return none{}, nil
	}
	if err != nil {
		return none{}, err // whose session has ended cannot end others
	}
	by := counterfoil.By(actorUser)
	switch {
	case this:
		err = c.auth.RevokeSession(c.ctx(), s.ID, counterfoil.SignedOut, by)
	case in.SID != "":
		err = c.auth.RevokeSession(c.ctx(), in.SID, counterfoil.SignedOutEverywhere, by, counterfoil.Of(s.Subject))
		if errors.Is(err, counterfoil.ErrNotFound) {
			err = errNoSession
		}
	case in.Which == "others":
		err = c.auth.RevokeSubject(c.ctx(), s.Subject, counterfoil.SignedOutEverywhere, by, counterfoil.Except(s.ID))
	default:
		err = c.auth.RevokeSubject(c.ctx(), s.Subject, counterfoil.SignedOutEverywhere, by)
	}
	if err != nil {
		return none{}, err
	}
	if this || in.Which == "all" {
		c.clearCookie()
	}
	return none{}, nil
}

// clearCookie deletes the cookie that named the session. What a Bearer named
// was never in a cookie.
func (c *call) clearCookie() {
	if c.client != "" {
		c.auth.ClearCookies(c.w, c.client)
	}
}

type passwordRequest struct {
	Current password `json:"current" required:"true" doc:"The password up to now."`
	New     password `json:"new" required:"true"`
}

func changePassword(c *call, in *passwordRequest) (*grant, error) {
	if err := c.rightCookie(); err != nil {
		return nil, err
	}
	g, err := c.users.ChangePassword(c.ctx(), c.token, string(in.Current), string(in.New), c.r)
	if err != nil {
		return nil, notHere(err)
	}
	return c.granted(g, c.client == ""), nil
}

// notHere speaks for sessions whose user another system keeps.
func notHere(err error) error {
	if errors.Is(err, counterfoil.ErrNotFound) {
		return &notFoundError{"The user of this session has no password here."}
	}
	return err
}

type resetRequest struct {
	Token password `json:"token" required:"true" doc:"From POST /users/{id}/password-reset."`
	New   password `json:"new" required:"true"`
}

func resetPassword(c *call, in *resetRequest) (none, error) {
	return none{}, c.users.ResetPassword(c.ctx(), string(in.Token), string(in.New), c.r)
}
