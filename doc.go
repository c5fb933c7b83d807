// Package counterfoil is the session system that does not have to choose
// between sessions and JWTs. A sign-in gives two credentials from one act: a
// session token, which the authority can revoke, and a short-lived access
// token (RFC 9068), which every service verifies on its own. The access token
// carries each request; the session is only asked for a fresh one.
//
// [New] makes an [Authority] over a store: package sqlstore for SQLite and
// PostgreSQL, package memstore for tests. [Authority.StartSession] signs a
// user in, [Authority.Browser] protects pages, [Authority.Refresh] trades a
// session token for an access token, [Authority.RevokeSession] and
// [Authority.RevokeSubject] end sessions. Other services verify with package
// verify. Package httpapi serves the calls over HTTP.
//
// # Compatibility
//
// Identifiers, cookies, token claims, stored rows and error codes are fixed
// from the first version on: tokens outlive versions. The Go API may change
// until v1.0.0; each change is in the changelog with its reason.
package counterfoil
