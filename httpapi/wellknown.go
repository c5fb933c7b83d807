package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

const (
	jwksPath       = "/.well-known/jwks.json"
	discoveryPath  = "/.well-known/oauth-authorization-server"
	introspectPath = "/oauth2/introspect"
	userinfoPath   = "/oauth2/userinfo"
	openapiPath    = "/openapi.json"

	briefly      = "public, max-age=300"
	readyTimeout = 2 * time.Second
)

func wellKnownRoutes(a *api) []route {
	discovery := route{
		method: http.MethodGet, path: discoveryPath, name: "discovery", sharing: everybody, cache: briefly, lenient: true,
		summary: "What this authority offers (RFC 8414)",
	}
	routes := []route{
		handle(route{
			method: http.MethodGet, path: jwksPath, name: "jwks", sharing: everybody, cache: briefly, lenient: true,
			summary: "The public keys that access tokens are signed with (RFC 7517)",
		}, jwks),
		handle(discovery, discover),
		handle(route{
			method: http.MethodGet, path: "/healthz", name: "health", lenient: true,
			summary: "The process runs",
		}, health),
		handle(route{
			method: http.MethodGet, path: "/readyz", name: "ready", lenient: true,
			summary: "Sessions can be served: the store answers and the clocks agree",
			detail:  "With degraded=ok also while the store does not answer and access tokens are minted from copies, if that is on; status says so then.",
		}, ready),
		handle(route{
			method: http.MethodGet, path: userinfoPath, name: "userinfo", credential: accessToken, sharing: trustedOrigins,
			summary: "The claims of the access token", detail: "Verified in this process; the store is not asked.",
		}, userinfo),
		handle(route{
			method: http.MethodPost, path: introspectPath, name: "introspect", credential: apiKey, scope: counterfoil.ScopeVerify, form: true,
			summary: "Does this access token serve now? (RFC 7662)",
			detail:  "The session is read at this moment. The live check of verifiers.",
		}, introspect),
	}
	if u, err := url.Parse(a.auth.Config().Issuer); err == nil && u.EscapedPath() != "" {
		// RFC 8414 section 3.1 puts the issuer's path behind the well-known one.
		discovery.path, discovery.name = discoveryPath+u.EscapedPath(), "discoveryOfPath"
		routes = append(routes, handle(discovery, discover))
	}
	var described openapi
	routes = append(routes, handle(route{
		method: http.MethodGet, path: openapiPath, name: "openapi", sharing: everybody, cache: briefly, lenient: true,
		summary: "This document",
	}, func(*call, *struct{}) (openapi, error) { return described, nil }))
	for i := range routes {
		routes[i].tag = "anyone"
		if routes[i].credential == 0 {
			routes[i].credential = public
		}
	}
	described = describeAPI(a, routes)
	return routes
}

// keySet is the JWKS as the authority wrote it.
type keySet []byte

func (keySet) mediaType() string { return "application/jwk-set+json" }
func (k keySet) content() []byte { return k }

func jwks(c *call, _ *struct{}) (keySet, error) { return c.auth.JWKS(), nil }

// metadata says what is true of this authority and nothing else. There is no
// token endpoint of OAuth, hence no grant and no response type.
type metadata struct {
	Issuer                    string   `json:"issuer"`
	JWKSURI                   string   `json:"jwks_uri"`
	UserinfoEndpoint          string   `json:"userinfo_endpoint"`
	IntrospectionEndpoint     string   `json:"introspection_endpoint"`
	IntrospectionEndpointAuth []string `json:"introspection_endpoint_auth_methods_supported"`
	ResponseTypesSupported    []string `json:"response_types_supported"`
	GrantTypesSupported       []string `json:"grant_types_supported"`
	MaxTokenLifetime          int64    `json:"cf_max_token_lifetime" doc:"The longest exp - iat of an access token, in seconds."`
}

func discover(c *call, _ *struct{}) (*metadata, error) {
	issuer := c.auth.Config().Issuer
	return &metadata{
		Issuer: issuer, JWKSURI: issuer + jwksPath, UserinfoEndpoint: issuer + userinfoPath,
		IntrospectionEndpoint: issuer + introspectPath, IntrospectionEndpointAuth: []string{"Bearer"},
		ResponseTypesSupported: []string{}, GrantTypesSupported: []string{},
		MaxTokenLifetime: int64(c.auth.MaxTokenLifetime() / time.Second),
	}, nil
}

type state struct {
	Status string `json:"status" enum:"ok"`
}

func health(*call, *struct{}) (state, error) { return state{"ok"}, nil }

type readyRequest struct {
	Degraded string `query:"degraded" enum:"ok" doc:"ok: for a load balancer that has nowhere else to send refreshes while every node is cut off."`
}

type readiness struct {
	Status string `json:"status" enum:"ok,degraded" doc:"degraded: refreshes are answered from copies, nothing else is."`
}

func ready(c *call, in *readyRequest) (readiness, error) {
	ctx, cancel := context.WithTimeout(c.ctx(), readyTimeout)
	defer cancel()
	err := c.auth.Ready(ctx)
	if err != nil && in.Degraded == "ok" && c.auth.ReadyDegraded(err) {
		return readiness{"degraded"}, nil
	}
	return readiness{"ok"}, err
}

// claims are those of a verified access token, the application's own included.
type claims map[string]json.RawMessage

func userinfo(c *call, _ *struct{}) (claims, error) {
	verified, ok := verify.FromContext(c.ctx())
	if !ok {
		return nil, verify.ErrCredentialMissing
	}
	var all claims
	err := verified.Decode(&all)
	return all, err
}

type introspectRequest struct {
	Token         password `form:"token" required:"true" doc:"The access token."`
	TokenTypeHint string   `form:"token_type_hint" doc:"Passed over: access tokens only."`
}

// introspection is the answer of RFC 7662 section 2.2.
type introspection struct {
	Active    bool     `json:"active"`
	Code      string   `json:"cf_code,omitempty" doc:"Why not: one of the codes of access tokens. Absent when active."`
	TokenType string   `json:"token_type,omitempty" enum:"Bearer"`
	Issuer    string   `json:"iss,omitempty"`
	Subject   string   `json:"sub,omitempty"`
	Audience  string   `json:"aud,omitempty"`
	ClientID  string   `json:"client_id,omitempty"`
	SID       string   `json:"sid,omitempty"`
	ID        string   `json:"jti,omitempty"`
	IssuedAt  unixTime `json:"iat,omitempty"`
	ExpiresAt unixTime `json:"exp,omitempty"`
	AuthTime  unixTime `json:"auth_time,omitempty"`
	AMR       []string `json:"amr,omitempty"`
	Epoch     int64    `json:"epoch,omitempty"`
	Roles     []string `json:"roles,omitempty"`
	Scope     string   `json:"scope,omitempty"`
}

func introspect(c *call, in *introspectRequest) (*introspection, error) {
	t, err := c.auth.Introspect(c.ctx(), string(in.Token))
	var refused *verify.Error
	switch {
	case err == nil:
	case errors.As(err, &refused) && refused.Status < http.StatusInternalServerError && refused.Code != "":
		return &introspection{Code: refused.Code}, nil
	default:
		return nil, err
	}
	return &introspection{
		Active: true, TokenType: "Bearer", Issuer: t.Issuer, Subject: t.Subject, Audience: t.Audience,
		ClientID: t.ClientID, SID: t.SessionID, ID: t.ID, IssuedAt: unix(t.IssuedAt), ExpiresAt: unix(t.ExpiresAt),
		AuthTime: unix(t.AuthTime), AMR: t.Methods, Epoch: t.Epoch, Roles: t.Roles, Scope: strings.Join(t.Scope, " "),
	}, nil
}
