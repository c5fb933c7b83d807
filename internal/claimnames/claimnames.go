// Package claimnames knows the claim names that Counterfoil gives a meaning to
// or keeps for one, so that no application claim can pass for one of them.
package claimnames

import (
	"strings"

	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// Prefix begins the names that Counterfoil keeps for itself.
const Prefix = "cf_"

// reserved are the names an application cannot use for its own claims: those
// our access tokens carry, those other readers of a JWT act upon, and those
// that later versions will use.
var reserved = map[string]bool{
	// RFC 7519 section 4.1.
	"iss": true, "sub": true, "aud": true, "exp": true, "nbf": true, "iat": true, "jti": true,
	// RFC 9068 section 2.2, RFC 8693 section 4, OpenID Connect Core section 2.
	"client_id": true, "scope": true, "auth_time": true, "acr": true, "amr": true, "azp": true,
	"nonce": true, "at_hash": true, "c_hash": true, "s_hash": true, "act": true, "may_act": true,
	// OpenID Connect front- and back-channel logout, RFC 8417.
	"sid": true, "events": true, "sub_id": true, "toe": true, "txn": true,
	// RFC 7800 and RFC 9449: what binds a token to its sender.
	"cnf": true, "htm": true, "htu": true, "ath": true,
	// RFC 9396; token status list.
	"authorization_details": true, "status": true,
	// RFC 7662: members of an introspection answer.
	"active": true, "token_type": true,
	// Ours.
	"epoch": true, "roles": true, "degraded": true,
	// Header names: some readers mix the two up.
	"alg": true, "typ": true, "kid": true, "crit": true, "jku": true, "jwk": true,
	"x5u": true, "x5c": true, "x5t": true, "b64": true, "cty": true,
}

// Folds reports whether name is not itself a reserved name but becomes one for
// a reader that ignores case, as encoding/json does ("SUB", "ſub"). A token
// that has such a name says two things to two readers.
func Folds(name string) bool {
	folded := strictjson.FoldsTo(name)
	return folded != name && reserved[folded]
}

// Reserved reports whether an application must not use name for a claim of its
// own: a reserved name, one that folds to one, or any that begins with "cf_" in
// whatever case.
func Reserved(name string) bool {
	folded := strictjson.FoldsTo(name)
	return reserved[folded] || strings.HasPrefix(folded, Prefix)
}
