package httpapi

import (
	"errors"
	"net/http"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/verify"
)

// Device Bound Session Credentials: the two calls that a browser makes by
// itself, without a script of ours.
const (
	dbscRegisterPath = "/dbsc/register"
	dbscRefreshPath  = "/dbsc/refresh"

	proofHeader     = "Secure-Session-Response"
	challengeHeader = "Secure-Session-Challenge"
	sessionIDHeader = "Sec-Secure-Session-Id"
	skippedHeader   = "Secure-Session-Skipped"
)

// dbscRoutes ask for no credential by the cookie's protection against other
// sites: the browser sends them for whatever page of whatever site made the
// request that waits for them, and what they carry is signed for this session.
// None answers 429, after which browsers give the session up.
func dbscRoutes() []route {
	routes := []route{
		handle(route{
			method: http.MethodPost, path: dbscRegisterPath, name: "registerDevice", credential: public,
			summary: "Bind the session to a key of the device",
			detail:  "Called by browsers that know Device Bound Session Credentials, after the header Secure-Session-Registration of a sign-in; the proof is in the header Secure-Session-Response. The answer sets the bound cookie.",
			faults:  []fault{faultProof},
		}, registerDevice),
		handle(route{
			method: http.MethodPost, path: dbscRefreshPath, name: "proveDevice", credential: public,
			summary: "Renew the bound cookie of a device-bound session",
			detail:  "Called by browsers. The session is named by the header Sec-Secure-Session-Id. 403 carries a challenge in the header Secure-Session-Challenge, to be signed and sent in Secure-Session-Response. 401 ends the session there: it has ended here. A good challenge signed by another key ends the session.",
			faults:  []fault{faultProof},
		}, proveDevice),
	}
	for i := range routes {
		routes[i].tag = "device"
		routes[i].faults = append(append(routes[i].faults, faultsEnded...), faultsCredential...)
	}
	return routes
}

// boundSession tells a browser which requests wait for which cookie.
type boundSession struct {
	SessionIdentifier string            `json:"session_identifier" doc:"The session's sid."`
	RefreshURL        string            `json:"refresh_url" doc:"Relative to the address of the registration."`
	Scope             boundScope        `json:"scope"`
	Credentials       []boundCredential `json:"credentials"`
}

type boundScope struct {
	IncludeSite bool `json:"include_site" doc:"false: this origin only."`
}

type boundCredential struct {
	Type       string `json:"type" enum:"cookie"`
	Name       string `json:"name"`
	Attributes string `json:"attributes"`
}

func registerDevice(c *call, _ *struct{}) (*boundSession, error) {
	tokens, err := c.sessionTokens()
	if err != nil {
		return nil, err
	}
	if len(tokens) == 0 {
		return nil, verify.ErrCredentialMissing
	}
	g, err := c.auth.RegisterDevice(c.ctx(), c.r, bareString(c.r.Header[proofHeader]), tokens...)
	return c.bound(g, err)
}

func proveDevice(c *call, _ *struct{}) (*boundSession, error) {
	sid := bareString(c.r.Header[sessionIDHeader])
	if !opaque.IsSelector(sid) {
		return nil, bad(sessionIDHeader, "must be there once, and name a session")
	}
	// Without a cookie the key alone decides: it is the stronger of the two.
	tokens, err := c.sessionTokens()
	if err != nil {
		tokens = nil
	}
	g, err := c.auth.ProveDevice(c.ctx(), c.r, sid, bareString(c.r.Header[proofHeader]), tokens...)
	return c.bound(g, err)
}

// bound answers with the new cookie and the next challenge.
func (c *call) bound(g *counterfoil.BoundGrant, err error) (*boundSession, error) {
	if refused := (*counterfoil.ProofError)(nil); errors.As(err, &refused) {
		// Its text is from here, nothing of the client's is in it.
		c.log.DebugContext(c.ctx(), "device proof refused", "request_id", requestID(c.w), "error", redact(err.Error()))
		if refused.Challenge != "" {
			c.challenge(refused.Challenge, bareString(c.r.Header[sessionIDHeader]))
		}
		return nil, verify.ErrProofRefused
	}
	if err != nil {
		return nil, err
	}
	c.challenge(g.Challenge, g.Session.ID)
	http.SetCookie(c.w, g.Cookie)
	return &boundSession{
		SessionIdentifier: g.Session.ID, RefreshURL: strings.TrimPrefix(dbscRefreshPath, "/dbsc/"),
		Credentials: []boundCredential{{Type: "cookie", Name: g.Cookie.Name, Attributes: counterfoil.BoundCookieAttributes}},
	}, nil
}

func (c *call) challenge(text, sid string) {
	c.w.Header().Set(challengeHeader, `"`+text+`";id="`+sid+`"`)
}

// sessionTokens are those of the cookies of all applications here.
func (c *call) sessionTokens() (tokens []string, err error) {
	cookies := &http.Request{Header: http.Header{"Cookie": c.r.Header["Cookie"]}}
	for _, id := range c.clients {
		token, err := c.auth.SessionTokenFrom(cookies, id)
		if errors.Is(err, verify.ErrCredentialMissing) {
			continue
		}
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, token)
	}
	return tokens, nil
}

// bareString reads a header that is a string of RFC 9651 and that browsers
// send without its quotes. None, several and parameters of it give nothing
// that anything is named by.
func bareString(values []string) string {
	if len(values) != 1 {
		return ""
	}
	text := strings.Trim(values[0], " \t")
	if len(text) >= 2 && text[0] == '"' && text[len(text)-1] == '"' {
		text = text[1 : len(text)-1]
	}
	return text
}

// offerBinding offers to bind the session whose cookie this answer sets. The
// path is told relative to the address of the request, of which a proxy may
// have changed the beginning.
func (c *call) offerBinding(g *counterfoil.Grant) {
	own := c.route.path
	if strings.HasPrefix(own, c.devicePrefix+"/") {
		own = own[len(c.devicePrefix):]
	}
	up := strings.Repeat("../", strings.Count(own, "/")-1)
	c.auth.OfferBinding(c.w, g, up+dbscRegisterPath[1:])
}

// unproved turns a missing proof into "try again" where the browser says that
// it has the key and put the proof off.
func (c *call) unproved(err error) error {
	if errors.Is(err, verify.ErrProofRequired) && c.r.Header.Get(skippedHeader) != "" {
		return verify.ErrUnavailable
	}
	return err
}
