package httpapi

import (
	"net/http"

	"github.com/counterfoil/counterfoil"
)

// Device serves the calls of users' devices: POST /sign-up, /sign-in,
// /refresh, /sign-out, /password, /step-up and /password-reset, GET /session,
// /session/watch and /sessions. Mount it at the host whose pages call it, since its cookie is
// bound to that host:
//
//	mux.Handle("/auth/", http.StripPrefix("/auth", httpapi.Device(auth)))
//
// Unsafe methods are refused from other origins than its own and those of
// [WithOrigins] ([http.CrossOriginProtection]).
func Device(auth *counterfoil.Authority, opts ...Option) http.Handler {
	a := newAPI(auth, opts)
	return newHandler(a, deviceRoutes(a))
}

// Backend serves the calls of your servers, with "Authorization: Bearer
// cf_sk_…" and the scope that each call names: /sessions… and, for the
// directory, /users…. An API key sees the sessions of its own application only.
func Backend(auth *counterfoil.Authority, opts ...Option) http.Handler {
	a := newAPI(auth, opts)
	return newHandler(a, backendRoutes(a))
}

// WellKnown serves /.well-known/jwks.json,
// /.well-known/oauth-authorization-server, /openapi.json, /healthz, /readyz,
// GET /oauth2/userinfo and POST /oauth2/introspect. Mount it at the root of
// the issuer, by these paths or as a whole. For an issuer with a path, strip
// that path; the one place outside of it, where RFC 8414 section 3.1 puts the
// discovery document, is
// "/.well-known/oauth-authorization-server" followed by the issuer's path.
func WellKnown(auth *counterfoil.Authority, opts ...Option) http.Handler {
	a := newAPI(auth, opts)
	return newHandler(a, wellKnownRoutes(a))
}

// Handler serves everything: [Device] under /v1/auth, [Backend] under /v1,
// [Gateway] at /v1/gateway, and [WellKnown]. It is what the counterfoil binary serves, and expects a host,
// or a host with the issuer's path stripped, for itself.
func Handler(auth *counterfoil.Authority, opts ...Option) http.Handler {
	a := newAPI(auth, append(opts[:len(opts):len(opts)], WithMounts("/v1/auth", "/v1")))
	a.subdomains = true
	routes := under(a.devicePrefix, deviceRoutes(a))
	routes = append(routes, under(a.backendPrefix, backendRoutes(a))...)
	return newGateway(a, a.backendPrefix+gatewayPath).beside(newHandler(a, append(routes, wellKnownRoutes(a)...)))
}
