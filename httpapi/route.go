package httpapi

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// credential is what a call asks for. The zero value is none of them: a route
// that forgets to say is not built.
type credential int

const (
	public        credential = iota + 1 // anyone
	userSession                         // the session cookie or a session token
	apiKey                              // an API key with the route's scope
	accessToken                         // an access token of any audience
	anyCredential                       // a session cookie or an access token, for the gateway
)

// sharing is which pages of other origins may read the answer.
type sharing int

const (
	sameOrigin     sharing = iota
	trustedOrigins         // those of WithOrigins, with the user's cookie
	everybody              // any, without credentials
)

// route is one call of the API: all that serving it and describing it needs.
type route struct {
	method  string
	path    string // "/sessions/{sid}"
	name    string // operationId
	summary string
	detail  string
	tag     string
	status  int // of success

	credential credential
	scope      string // of the API key
	sharing    sharing
	cookie     bool // protected against cross-site requests
	form       bool // the body is a form (RFC 7662)
	lenient    bool // unknown query parameters are passed over
	cache      string

	faults []fault // beyond those that credential and input bring

	in, out reflect.Type
	takes   *inputs
	serve   func(c *call) (any, error)
}

// fault is a problem that a call can answer with.
type fault struct {
	status int
	code   string
}

// Codes beyond those of package verify.
const (
	codeInvalidCredentials = "invalid_credentials"
	codeConflict           = "conflict"
	codeRateLimited        = "rate_limited"
	codeNotFound           = "not_found"
	codeInternal           = "internal"
)

var (
	faultCredentials = fault{http.StatusUnauthorized, codeInvalidCredentials}
	faultConflict    = fault{http.StatusConflict, codeConflict}
	faultRate        = fault{http.StatusTooManyRequests, codeRateLimited}
	faultNotFound    = fault{http.StatusNotFound, codeNotFound}
	faultUnavailable = fault{http.StatusServiceUnavailable, verify.CodeUnavailable}
	faultInput       = fault{http.StatusBadRequest, verify.CodeInvalidRequest}
	faultToken       = fault{http.StatusUnauthorized, verify.CodeTokenInvalid}
	faultProof       = fault{http.StatusForbidden, verify.CodeProofRequired}
	faultScope       = fault{http.StatusForbidden, verify.CodeInsufficientScope}

	faultsEnded = []fault{
		{http.StatusUnauthorized, verify.CodeSessionRevoked},
		{http.StatusUnauthorized, verify.CodeSessionExpired},
		{http.StatusUnauthorized, verify.CodeSessionUnknown},
	}
	faultsCredential = []fault{
		{http.StatusUnauthorized, verify.CodeCredentialMissing},
		{http.StatusUnauthorized, verify.CodeCredentialAmbiguous},
	}
	faultUnproved = fault{http.StatusUnauthorized, verify.CodeProofRequired}
	faultsAccess  = []fault{
		faultToken,
		{http.StatusUnauthorized, verify.CodeTokenExpired},
		{http.StatusUnauthorized, verify.CodeTokenStale},
		{http.StatusUnauthorized, verify.CodeTokenRevoked},
	}
	faultsBody = []fault{
		faultInput,
		{http.StatusRequestEntityTooLarge, verify.CodeInvalidRequest},
		{http.StatusUnsupportedMediaType, verify.CodeInvalidRequest},
	}
)

// none is the answer that has no body.
type none struct{}

// handle completes a route with the function that serves it. In is decoded
// from path, query and body by its tags; Out is what the call answers with.
func handle[In, Out any](r route, serve func(c *call, in *In) (Out, error)) route {
	r.in, r.out = reflect.TypeFor[In](), reflect.TypeFor[Out]()
	r.takes = inputsOf(r.in)
	if r.status == 0 {
		r.status = http.StatusOK
		if r.out == reflect.TypeFor[none]() {
			r.status = http.StatusNoContent
		}
	}
	r.serve = func(c *call) (any, error) {
		in := new(In)
		if err := c.decode(reflect.ValueOf(in).Elem()); err != nil {
			return nil, err
		}
		return serve(c, in)
	}
	return r
}

// safe reports whether the method changes nothing, and so takes no body.
func (r *route) safe() bool { return r.method == http.MethodGet }

// problems are all the faults that the route can answer with.
func (r *route) problems() []fault {
	all := slices.Clone(r.faults)
	switch r.credential {
	case userSession:
		all = append(append(append(all, faultsCredential...), faultsEnded...), faultUnproved)
	case apiKey:
		all = append(append(all, faultsCredential...), faultToken)
		all = append(all, faultScope)
	case accessToken:
		all = append(append(all, faultsCredential...), faultsAccess...)
	}
	switch {
	case !r.safe():
		all = append(all, faultsBody...)
	case len(r.takes.query)+len(r.takes.path) > 0 || !r.lenient:
		all = append(all, faultInput)
	}
	if r.cookie && !r.safe() {
		all = append(all, fault{http.StatusForbidden, verify.CodeInvalidRequest})
	}
	all = append(all, faultUnavailable, fault{http.StatusInternalServerError, codeInternal})
	slices.SortFunc(all, func(a, b fault) int {
		if a.status != b.status {
			return a.status - b.status
		}
		return strings.Compare(a.code, b.code)
	})
	return slices.Compact(all)
}

// check panics for a route that could not be served as it is described.
func (r *route) check() {
	var wrong string
	for _, name := range parameters(r.path) {
		if _, ok := r.takes.path[name]; !ok {
			wrong = "nothing takes the parameter " + name
		}
	}
	switch {
	case r.serve == nil:
		wrong = "nothing serves it"
	case r.credential == 0:
		wrong = "it does not say who may call it"
	case (r.credential == apiKey) != slices.Contains(counterfoil.BackendScopes, r.scope):
		wrong = "the scope does not go with the credential"
	case r.credential == userSession && !r.cookie:
		wrong = "it takes the cookie without protection"
	case r.safe() && len(r.takes.body) > 0:
		wrong = "a safe method takes a body"
	}
	if wrong != "" {
		panic(fmt.Sprintf("httpapi: route %s %s: %s", r.method, r.path, wrong))
	}
}

func parameters(path string) (names []string) {
	for segment := range strings.SplitSeq(path, "/") {
		if name, ok := parameter(segment); ok {
			names = append(names, name)
		}
	}
	return names
}

func parameter(segment string) (string, bool) {
	if len(segment) > 2 && segment[0] == '{' {
		return segment[1 : len(segment)-1], true
	}
	return "", false
}

// under puts a prefix before the paths.
func under(prefix string, routes []route) []route {
	routes = slices.Clone(routes)
	for i := range routes {
		routes[i].path = prefix + routes[i].path
	}
	return routes
}
