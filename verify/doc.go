// Package verify checks the access tokens of a Counterfoil authority in the
// services that receive them. It needs the standard library only, and on its
// default route nobody: with a known key it does no I/O.
//
//	v, err := verify.New(ctx, verify.Config{
//		Issuer:   "https://app.example",
//		Audience: "orders",
//	})
//	signedIn := v.Require()
//	mux.Handle("GET /orders", signedIn(orders))
//
// In a handler, [FromContext] has the claims, or [Verifier.Handler] hands them
// over as an argument. A token that was verified before costs a lookup and a
// look at the revocations, without an allocation. What a route wants beyond a valid
// token it says in its rules: a maximum age of the token, a recent
// authentication, a role, a scope, a live check at the authority.
//
// A refusal is an [Error] of one of three families, [ErrUnauthenticated],
// [ErrForbidden] and [ErrUnavailable], with a stable code that clients act on.
package verify
