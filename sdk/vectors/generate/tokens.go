package main

import (
	"fmt"
	"strings"
)

// tokenCase is a token and what a verifier says to it. What is empty is as in
// the head of the file.
type tokenCase struct {
	Name        string     `json:"name"`
	Token       string     `json:"token"`
	Now         int64      `json:"now,omitempty"`
	Audience    string     `json:"audience,omitempty"`
	AnyAudience bool       `json:"any_audience,omitempty"`
	Algorithms  []string   `json:"algorithms,omitempty"`
	MaxLifetime int64      `json:"max_token_lifetime,omitempty"`
	Revocations []list     `json:"revocations,omitempty"`
	Rules       *ruleCase  `json:"rules,omitempty"`
	Live        string     `json:"live,omitempty"` // what the authority answers: "active" or a code; empty: it cannot be asked
	Expect      expectCase `json:"expect"`
}

type ruleCase struct {
	MaxTokenAge    float64  `json:"max_token_age,omitempty"`
	RefreshWhenOld bool     `json:"refresh_when_old,omitempty"`
	MaxAuthAge     float64  `json:"max_auth_age,omitempty"`
	Roles          []string `json:"role,omitempty"`
	Scope          []string `json:"scope,omitempty"`
	Live           bool     `json:"live,omitempty"`
	NoDegraded     bool     `json:"no_degraded,omitempty"`
}

type expectCase struct {
	Code   string   `json:"code"` // empty: the token is good
	Claims object   `json:"claims,omitempty"`
	Scope  []string `json:"scope,omitempty"`
	MaxAge int64    `json:"max_age,omitempty"`
}

func tokens() object {
	var cases []tokenCase
	add := func(name, token, code string, change ...func(*tokenCase)) {
		c := tokenCase{Name: name, Token: token, Expect: expectCase{Code: code}}
		for _, f := range change {
			f(&c)
		}
		cases = append(cases, c)
	}
	good(add)
	malformed(add)
	badClaims(add)
	times(add)
	revoked(add)
	rules(add)
	return object{
		"about":  "Access tokens, and what a verifier says to them. See README.md.",
		"issuer": issuer, "audience": audience, "now": now, "max_token_lifetime": 3600,
		"jwks": jwks(), "cases": cases,
	}
}

type adder func(name, token, code string, change ...func(*tokenCase))

func at(t int64) func(*tokenCase) { return func(c *tokenCase) { c.Now = t } }

func known(entries ...list) func(*tokenCase) {
	return func(c *tokenCase) { c.Revocations = entries }
}

func where(r ruleCase, live string) func(*tokenCase) {
	return func(c *tokenCase) { c.Rules, c.Live = &r, live }
}

func head(alg, kid string) string {
	return fmt.Sprintf(`{"alg":%q,"typ":"at+jwt","kid":%q}`, alg, kid)
}

func good(add adder) {
	says := func(c *tokenCase) {
		c.Expect.Claims = object{
			"iss": issuer, "sub": subject, "aud": audience, "client_id": "default", "sid": sid, "jti": jti, "iat": now - 10, "exp": now + 50,
			"auth_time": now - 600, "amr": list{"pwd"}, "epoch": epoch, "roles": list{"admin", "clerk"}, "scope": list{"orders:read", "orders:write"},
		}
	}
	add("ES256", usual().token(), "", says)
	add("EdDSA", sign(head("EdDSA", "ed1"), usual().json(), "ed1"), "", says)
	add("RS256", sign(head("RS256", "rs1"), usual().json(), "rs1"), "", says)
	add("PS256", sign(head("PS256", "ps1"), usual().json(), "ps1"), "", says)
	add("the n-s twin of an ES256 signature", twin(usual().token()), "", says)
	add("spaces and another order in header and payload", sign("{ \"kid\":\"es1\",\n\"typ\" :\"at+jwt\",\"alg\":\"ES256\" }", " "+usual().json()+"\t", "es1"), "", says)
	add("escaped names and values", sign(`{"\u0061lg":"ES\u003256","typ":"at+jwt","kid":"es1"}`, strings.Replace(usual().json(), `"sub":"user-1"`, `"s\u0075b":"user\u002d1"`, 1), "es1"), "", says)
	add("only what no token may lack", usual().without("auth_time").without("amr").without("roles").without("scope").token(), "", func(c *tokenCase) {
		c.Expect.Claims = object{"iss": issuer, "sub": subject, "aud": audience, "client_id": "default", "sid": sid, "jti": jti,
			"iat": now - 10, "exp": now + 50, "amr": list{}, "epoch": epoch, "roles": list{}, "scope": list{}}
	})
	add("aud as an array of one", usual().with("aud", `["orders"]`).token(), "", says)
	add("claims of the application", usual().and("plan", `{"name":"gold","seats":[1,2.5e1,null,true]}`).token(), "", says)
	add("a claim that folds to nothing reserved", usual().and("Plan", `"gold"`).and("plan", `"gold"`).token(), "", says)
	add("a subject beyond ASCII", usual().with("sub", text("Zoë \U0001f3ab")).token(), "", func(c *tokenCase) { c.Expect.Claims = object{"sub": "Zoë \U0001f3ab"} })
	add("epoch 0", usual().with("epoch", 0).token(), "", func(c *tokenCase) { c.Expect.Claims = object{"epoch": 0} })
	add("an epoch in microseconds", usual().with("epoch", "1763770000123456").token(), "", func(c *tokenCase) { c.Expect.Claims = object{"epoch": 1763770000123456} })
	add("8192 characters", ofLength(8192), "", says)
	add("algorithms narrowed to this one", usual().token(), "", func(c *tokenCase) { c.Algorithms = []string{"ES256", "EdDSA"} })
	add("any audience", usual().with("aud", text("billing")).token(), "", func(c *tokenCase) { c.AnyAudience = true })
}

func malformed(add adder) {
	const invalid = "token_invalid"
	token := usual().token()
	h, p, s := parts(token)
	flipped := []byte(s)
	flipped[20] = map[bool]byte{true: 'B', false: 'A'}[flipped[20] == 'A']
	for _, c := range [...][2]string{
		{"empty", ""}, {"one part", h}, {"two parts", h + "." + p}, {"four parts", token + ".x"}, {"five parts, as a JWE", h + "." + p + ".." + s + ".x"},
		{"empty header", "." + p + "." + s}, {"empty payload", h + ".." + s}, {"no signature", h + "." + p + "."},
		{"a space before", " " + token}, {"a line end behind", token + "\n"}, {"a line end within", h + "\n." + p + "." + s},
		{"padding", h + "." + p + "." + s + "=="}, {"standard base64", h + "." + p + "." + "+/" + s[2:]},
		{"respelled signature", h + "." + p + "." + respelled(s)},
		{"respelled payload", func() string {
			rp := respelled(b64([]byte(usual().and("x", `""`).json())))
			return h + "." + rp + "." + b64(signature(h+"."+rp, "es1"))
		}()},
		{"cut signature", h + "." + p + "." + b64(signature(h+"."+p, "es1")[:63])},
		{"long signature", h + "." + p + "." + b64(append(signature(h+"."+p, "es1"), 0))},
		{"signature of zeros", h + "." + p + "." + b64(make([]byte, 64))},
		{"another signature", h + "." + p + "." + string(flipped)},
		{"another payload", h + "." + b64([]byte(usual().with("sub", text("user-2")).json())) + "." + s},
		{"signed by another key", sign(header, usual().json(), "es2")},
		{"unknown kid", sign(head("ES256", "es9"), usual().json(), "es1")},
		{"alg none", b64([]byte(head("none", "es1"))) + "." + p + "."},
		{"alg none with a signature", b64([]byte(head("none", "es1"))) + "." + p + "." + s},
		{"alg in another case", sign(head("es256", "es1"), usual().json(), "es1")},
		{"alg HS256", sign(head("HS256", "es1"), usual().json(), "es1")},
		{"alg of another key", sign(head("EdDSA", "es1"), usual().json(), "es1")},
		{"RS256 with a key for PS256", sign(head("RS256", "ps1"), usual().json(), "rs1")},
		{"no typ", sign(`{"alg":"ES256","kid":"es1"}`, usual().json(), "es1")},
		{"typ JWT", sign(`{"alg":"ES256","typ":"JWT","kid":"es1"}`, usual().json(), "es1")},
		{"typ application/at+jwt", sign(`{"alg":"ES256","typ":"application/at+jwt","kid":"es1"}`, usual().json(), "es1")},
		{"typ in another case", sign(`{"alg":"ES256","typ":"AT+JWT","kid":"es1"}`, usual().json(), "es1")},
		{"no kid", sign(`{"alg":"ES256","typ":"at+jwt"}`, usual().json(), "es1")},
		{"kid that is a path", sign(head("ES256", "../es1"), usual().json(), "es1")},
		{"kid of 65 characters", sign(head("ES256", strings.Repeat("k", 65)), usual().json(), "es1")},
		{"kid that is a number", sign(`{"alg":"ES256","typ":"at+jwt","kid":1}`, usual().json(), "es1")},
		{"crit", sign(`{"alg":"ES256","typ":"at+jwt","kid":"es1","crit":["exp"]}`, usual().json(), "es1")},
		{"b64", sign(`{"alg":"ES256","typ":"at+jwt","kid":"es1","b64":true}`, usual().json(), "es1")},
		{"jku", sign(`{"alg":"ES256","typ":"at+jwt","kid":"es1","jku":"https://evil.example"}`, usual().json(), "es1")},
		{"jwk", sign(`{"alg":"ES256","typ":"at+jwt","kid":"es1","jwk":{}}`, usual().json(), "es1")},
		{"another member in the header", sign(`{"alg":"ES256","typ":"at+jwt","kid":"es1","x":1}`, usual().json(), "es1")},
		{"alg twice", sign(`{"alg":"ES256","alg":"ES256","typ":"at+jwt","kid":"es1"}`, usual().json(), "es1")},
		{"Alg beside alg", sign(`{"alg":"ES256","Alg":"none","typ":"at+jwt","kid":"es1"}`, usual().json(), "es1")},
		{"a header that is an array", sign(`["ES256"]`, usual().json(), "es1")},
		{"a header that is no JSON", sign(`alg`, usual().json(), "es1")},
		{"a header of more than 1024 bytes", sign(header+strings.Repeat(" ", 1025), usual().json(), "es1")},
		{"8194 characters", ofLength(8194)},
		{"a payload that is an array", sign(header, "[]", "es1")},
		{"a payload that is no JSON", sign(header, "sub", "es1")},
		{"data after the payload", sign(header, usual().json()+"{}", "es1")},
		{"a byte order mark", sign(header, "\ufeff"+usual().json(), "es1")},
		{"invalid UTF-8", sign(header, strings.Replace(usual().json(), "user-1", "user-\xff", 1), "es1")},
		{"a lone surrogate", sign(header, strings.Replace(usual().json(), "user-1", `user-\ud800`, 1), "es1")},
		{"a name twice", usual().and("plan", "1").and("plan", "1").token()},
		{"sub twice", usual().and("sub", text("admin")).token()},
		{"sub twice, once escaped", sign(header, strings.Replace(usual().json(), "{", `{"s\u0075b":"admin",`, 1), "es1")},
		{"a name twice further down", usual().and("plan", `{"a":1,"a":2}`).token()},
		{"seventeen levels", usual().and("deep", strings.Repeat("[", 16)+strings.Repeat("]", 16)).token()},
		{"a number of 21 characters", usual().and("n", "123456789012345678901").token()},
		{"a number beyond a double", usual().and("n", "1e999").token()},
	} {
		add(c[0], c[1], invalid)
	}
	wide := usual()
	for i := range 65 - len(wide) {
		wide = wide.and(fmt.Sprintf("m%d", i), "1")
	}
	add("65 claims", wide.token(), invalid)
	add("64 claims", wide[:64].token(), "")
	add("algorithms narrowed to another", token, invalid, func(c *tokenCase) { c.Algorithms = []string{"EdDSA"} })
}

func badClaims(add adder) {
	const invalid = "token_invalid"
	for _, name := range []string{"iss", "sub", "aud", "client_id", "sid", "iat", "exp", "jti", "epoch"} {
		add(name+" is missing", usual().without(name).token(), invalid)
	}
	for _, name := range []string{"iss", "sub", "aud", "client_id", "sid", "jti", "scope"} {
		add(name+" is empty", usual().with(name, `""`).token(), invalid)
		add(name+" is a number", usual().with(name, 1).token(), invalid)
		add(name+" is null", usual().with(name, "null").token(), invalid)
	}
	for _, name := range []string{"iat", "exp", "nbf", "auth_time", "epoch"} {
		for _, value := range []string{`"1763770000"`, "1763770000.0", "1.76377e9", "-1", "-0", "null", "99999999999999999999", "[1763770000]"} {
			add(name+" is "+value, usual().with(name, value).token(), invalid)
		}
	}
	for _, name := range []string{"iat", "exp", "nbf", "auth_time"} {
		add(name+" is 0", usual().with(name, 0).token(), invalid)
		add(name+" is after the year 9999", usual().with(name, "253402300800").token(), invalid)
	}
	for _, name := range []string{"amr", "roles"} {
		for _, value := range []string{`"admin"`, `[1]`, `[""]`, `[["admin"]]`, "null", `{"0":"admin"}`} {
			add(name+" is "+value, usual().with(name, value).token(), invalid)
		}
		add(name+" is []", usual().with(name, "[]").token(), "")
	}
	for _, value := range []string{`" orders:read"`, `"orders:read "`, `"a  b"`, `"a\tb"`, `"a\\b"`, `"a\"b"`, `"é"`, `["a"]`} {
		add("scope is "+value, usual().with("scope", value).token(), invalid)
	}
	for _, value := range []string{"[]", `["orders","billing"]`, `["orders","orders"]`, `[["orders"]]`, `[""]`, `["orders",1]`, `{"orders":1}`, "null"} {
		add("aud is "+value, usual().with("aud", value).token(), invalid)
	}
	add("another issuer", usual().with("iss", text("https://other.example")).token(), invalid)
	add("the issuer with a slash behind", usual().with("iss", text(issuer+"/")).token(), invalid)
	add("another audience", usual().with("aud", text("billing")).token(), "audience_mismatch")
	add("another audience in an array", usual().with("aud", `["billing"]`).token(), "audience_mismatch")
	add("the audience in another case", usual().with("aud", text("Orders")).token(), "audience_mismatch")
	add("another audience, and a bad signature", usual().with("aud", text("billing")).token()+"A", invalid)
	for _, value := range []string{`"true"`, "1", "null", "[]"} {
		add("degraded is "+value, usual().and("degraded", value).token(), invalid)
	}
	add("cnf", usual().and("cnf", `{"jkt":"x"}`).token(), invalid)
	for _, name := range []string{"SUB", "Sid", "\u017fub", "\u017fcope", "Epoch", "ROLES", "Act", "\u212aid", "client_ID", "Cnf", "X5T", "Degraded"} {
		add("a claim named "+name, usual().and(name, text("admin")).token(), invalid)
	}
	add("a machine's token", usual().without("sid").with("sub", text("cf_client_1")).with("client_id", text("cf_client_1")).token(), invalid)
}
