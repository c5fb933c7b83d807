// Package httpapi serves an authority over HTTP as plain [http.Handler]s:
//
//   - [Device] is what users' browsers and apps call: sign-in, refresh, the list
//     of devices, sign-out. It takes the session cookie or
//     "Authorization: Bearer cf_st_…".
//   - [Backend] is what your servers call, with an API key.
//   - [WellKnown] is what everybody may read, and what verifiers call.
//   - [Gateway] is what a reverse proxy asks before it lets a request through to
//     services that know nothing of sessions.
//   - [Handler] is all of it as the counterfoil binary serves it.
//
// Device and Backend work under any prefix, mounted with [http.StripPrefix].
// The calls, their fields and the codes of their problems are in
// docs/http-api.md and in the OpenAPI document at /openapi.json, which is made
// from the same table of routes that requests are served by.
//
// # Bad input
//
// Every call is decoded strictly. Bodies are JSON of at most 64 KiB, without
// Content-Encoding; unknown and repeated members, members in another letter
// case, wrong types and data after the end are refused with invalid_request
// and the path of the member in "field". Errors are problem+json (RFC 9457).
package httpapi
