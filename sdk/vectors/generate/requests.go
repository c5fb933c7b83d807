package main

import (
	"strings"
)

// requestCase is a request's head and the answer to it; status 200 means that
// the handler is reached.
type requestCase struct {
	Name    string      `json:"name"`
	Method  string      `json:"method,omitempty"` // GET
	Headers [][2]string `json:"headers"`
	Cookie  bool        `json:"cookie,omitempty"`   // the rule
	Option  bool        `json:"optional,omitempty"` // a request without a credential passes
	Trusted []string    `json:"trusted_origins,omitempty"`
	Rules   *ruleCase   `json:"rules,omitempty"`
	Live    string      `json:"live,omitempty"`

	Status int               `json:"status"`
	Sub    string            `json:"sub,omitempty"` // who the handler sees
	Answer map[string]string `json:"answer,omitempty"`
	Body   object            `json:"body,omitempty"`
}

const (
	challengeInvalid = `Bearer realm="counterfoil", error="invalid_token", error_description="`
	refreshOnce      = "The access token is not valid here. Refresh it once."
)

// refused is the answer that goes with a code.
func refused(c requestCase, status int, title, code, detail, challenge string) requestCase {
	c.Status = status
	c.Body = object{"status": status, "title": title, "code": code, "detail": detail}
	c.Answer = map[string]string{"Content-Type": "application/problem+json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
	if challenge != "" {
		c.Answer["WWW-Authenticate"] = challenge
	}
	return c
}

func requests() object {
	token := usual().token()
	var cases []requestCase
	passes := func(c requestCase) {
		c.Status, c.Sub = 200, subject
		if c.Option && len(c.Headers) == 0 {
			c.Sub = ""
		}
		cases = append(cases, c)
	}
	unauthorized := func(c requestCase, code, detail string) {
		cases = append(cases, refused(c, 401, "Unauthorized", code, detail, challengeInvalid+detail+`"`))
	}
	missing := func(c requestCase) {
		cases = append(cases, refused(c, 401, "Unauthorized", "credential_missing", "The request carries no access token.", `Bearer realm="counterfoil"`))
	}
	ambiguous := func(c requestCase) {
		const detail = "The request carries more than one credential."
		cases = append(cases, refused(c, 401, "Unauthorized", "credential_ambiguous", detail, `Bearer realm="counterfoil", error="invalid_request", error_description="`+detail+`"`))
	}
	crossOrigin := func(c requestCase) {
		c = refused(c, 403, "Forbidden", "invalid_request", "The request came from an origin that may not send it.", "")
		c.Body["field"] = "Origin"
		cases = append(cases, c)
	}
	type h = [][2]string
	auth := func(value string) [2]string { return [2]string{"Authorization", value} }
	jar := func(value string) [2]string { return [2]string{"Cookie", value} }
	mine := "__Host-counterfoil-at=" + token

	passes(requestCase{Name: "bearer", Headers: h{auth("Bearer " + token)}})
	passes(requestCase{Name: "bearer in another case", Headers: h{auth("bEARER " + token)}})
	passes(requestCase{Name: "some spaces", Headers: h{auth("Bearer   " + token)}})
	passes(requestCase{Name: "a header name in another case", Headers: h{{"aUTHORIZATION", "Bearer " + token}}})
	passes(requestCase{Name: "bearer from another origin", Method: "POST", Headers: h{auth("Bearer " + token), {"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "cross-site"}}})
	missing(requestCase{Name: "nothing", Headers: h{}})
	missing(requestCase{Name: "another scheme", Headers: h{auth("Basic dTpw")}})
	missing(requestCase{Name: "a scheme that begins alike", Headers: h{auth("Bearerx " + token)}})
	missing(requestCase{Name: "a tab behind the scheme", Headers: h{auth("Bearer\t" + token)}})
	missing(requestCase{Name: "a cookie that nobody asked for", Headers: h{jar(mine)}})
	unauthorized(requestCase{Name: "no token", Headers: h{auth("Bearer")}}, "token_invalid", refreshOnce)
	unauthorized(requestCase{Name: "two tokens", Headers: h{auth("Bearer " + token + " " + token)}}, "token_invalid", refreshOnce)
	ambiguous(requestCase{Name: "two headers", Headers: h{auth("Bearer " + token), auth("Bearer " + token)}})
	ambiguous(requestCase{Name: "two headers, two cases", Headers: h{auth("Bearer " + token), {"authorization", "Basic dTpw"}}})

	passes(requestCase{Name: "optional: nothing", Option: true, Headers: h{}})
	passes(requestCase{Name: "optional: bearer", Option: true, Headers: h{auth("Bearer " + token)}})
	unauthorized(requestCase{Name: "optional: a bad one", Option: true, Headers: h{auth("Bearer x")}}, "token_invalid", refreshOnce)
	ambiguous(requestCase{Name: "optional: two", Option: true, Headers: h{auth("Bearer x"), auth("Bearer x")}})

	passes(requestCase{Name: "cookie", Cookie: true, Headers: h{jar(mine)}})
	passes(requestCase{Name: "cookie among others", Cookie: true, Headers: h{jar("a=b; " + mine + " ;__Host-counterfoil-at2=x;x__Host-counterfoil-at=y")}})
	passes(requestCase{Name: "the header comes first", Cookie: true, Headers: h{auth("Bearer " + token), jar("__Host-counterfoil-at=x")}})
	passes(requestCase{Name: "another scheme, and a cookie", Cookie: true, Headers: h{auth("Basic dTpw"), jar(mine)}})
	missing(requestCase{Name: "cookie: none of ours", Cookie: true, Headers: h{jar("a=b; __host-counterfoil-at=x; __Host-counterfoil=y")}})
	ambiguous(requestCase{Name: "two cookies", Cookie: true, Headers: h{jar(mine + "; " + mine)}})
	unauthorized(requestCase{Name: "an empty cookie", Cookie: true, Headers: h{jar("__Host-counterfoil-at=")}}, "token_invalid", refreshOnce)
	passes(requestCase{Name: "cookie, GET from another site", Cookie: true, Headers: h{jar(mine), {"Sec-Fetch-Site", "cross-site"}}})
	for _, c := range []struct {
		name    string
		good    bool
		headers h
	}{
		{"no browser", true, nil},
		{"same origin", true, h{{"Sec-Fetch-Site", "same-origin"}}},
		{"typed in", true, h{{"Sec-Fetch-Site", "none"}}},
		{"same site", false, h{{"Sec-Fetch-Site", "same-site"}}},
		{"cross site", false, h{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://app.example"}}},
		{"an old browser, own origin", true, h{{"Origin", "https://app.example"}}},
		{"an old browser, another origin", false, h{{"Origin", "https://evil.example"}}},
		{"an old browser, no origin", false, h{{"Origin", "null"}}},
		{"a trusted origin", true, h{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://pages.example"}}},
		{"an old browser, a trusted origin", true, h{{"Origin", "https://pages.example"}}},
		{"a trusted origin over http", false, h{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "http://pages.example"}}},
	} {
		r := requestCase{Name: "cookie, POST: " + c.name, Method: "POST", Cookie: true, Trusted: []string{"https://pages.example"}, Headers: append(h{jar(mine), {"Host", "app.example"}}, c.headers...)}
		if c.good {
			passes(r)
		} else {
			crossOrigin(r)
		}
	}
	answers(func(c requestCase) { cases = append(cases, c) }, unauthorized)
	sorted(cases, func(c requestCase) string { return c.Name })
	return object{"about": "Requests, and the answers to them. See README.md.", "issuer": issuer, "audience": audience, "now": now, "jwks": jwks(), "cases": cases}
}

// answers has one request for each code that is not above.
func answers(add func(requestCase), unauthorized func(c requestCase, code, detail string)) {
	request := func(name string, c claims) requestCase {
		return requestCase{Name: "answer: " + name, Headers: [][2]string{{"Authorization", "Bearer " + c.token()}}}
	}
	unauthorized(request("expired", usual().with("exp", now-5)), "token_expired", "The access token has expired. Refresh it.")
	old := request("too old", usual())
	old.Rules = &ruleCase{MaxTokenAge: 1}
	unauthorized(old, "token_too_old", "The access token is older than this resource accepts. Refresh it.")
	for code, detail := range map[string]string{
		"token_stale":     "The rights of this user have changed since the access token was issued. Refresh it.",
		"token_revoked":   "The access token has been revoked. Refresh it.",
		"session_revoked": "The session has been ended. Sign in again.",
		"session_expired": "The session has expired. Sign in again.",
		"session_unknown": "There is no such session. Sign in again.",
	} {
		c := request(strings.ReplaceAll(code, "_", " "), usual())
		c.Rules, c.Live = &ruleCase{Live: true}, code
		unauthorized(c, code, detail)
	}
	const elsewhere = "The access token was issued for another service."
	add(refused(request("another audience", usual().with("aud", text("billing"))), 403, "Forbidden", "audience_mismatch", elsewhere, challengeInvalid+elsewhere+`"`))

	const notGranted = "The access token does not grant what this resource asks for."
	scope := request("scope", usual())
	scope.Rules = &ruleCase{Scope: []string{"orders:delete", "a'b"}}
	scope = refused(scope, 403, "Forbidden", "insufficient_scope", notGranted,
		`Bearer realm="counterfoil", error="insufficient_scope", error_description="`+notGranted+`", scope="orders:delete a'b"`)
	scope.Body["scope"] = "orders:delete a'b"
	add(scope)
	role := request("role", usual())
	role.Rules = &ruleCase{Roles: []string{"owner"}}
	add(refused(role, 403, "Forbidden", "insufficient_scope", notGranted, `Bearer realm="counterfoil", error="insufficient_scope", error_description="`+notGranted+`"`))

	const stepUp = "This resource asks for a more recent or stronger authentication."
	auth := request("authentication", usual())
	auth.Rules = &ruleCase{MaxAuthAge: 299.5}
	auth = refused(auth, 401, "Unauthorized", "insufficient_user_authentication", stepUp,
		`Bearer realm="counterfoil", error="insufficient_user_authentication", error_description="`+stepUp+`", max_age="300"`)
	auth.Body["max_age"] = 300
	add(auth)

	down := request("unavailable", usual())
	down.Rules, down.Live = &ruleCase{Live: true}, "unavailable"
	down = refused(down, 503, "Service Unavailable", "unavailable", "This cannot be verified at the moment. Try again.", "")
	down.Answer["Retry-After"] = "1"
	add(down)
}
