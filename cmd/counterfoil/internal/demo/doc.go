// Package demo is what the command counterfoil demo is made of: a page that
// shows both halves of a sign-in, the protected service that the page calls,
// and the processes they run in.
//
// There are three processes. The page's own server is the one that people
// open; it passes /v1/auth on to the authority and /api to the service, so
// that the browser sees one host. The authority and the service are children
// of it, each told what it needs on its standard input and ended by the end
// of it: they cannot outlive their parent.
package demo
