package oracle

import "strings"

const claims = `{"iss":"https://app.example","sub":"u1","aud":"orders","client_id":"default","sid":"3fZk81Yc0aHq72LmN4pRsT9v",` +
	`"iat":1763770000,"exp":1763770060,"jti":"j1","auth_time":1763760000,"amr":["pwd"],"epoch":1763700000000001,"roles":["admin"]}`

const header = `{"alg":"ALG","kid":"KID","typ":"at+jwt"}`

// but is claims with one piece written differently.
func but(old, changed string) string {
	if strings.Count(claims, old) != 1 {
		panic(old + " is not in the claims once")
	}
	return strings.Replace(claims, old, changed, 1)
}

// nasties are signed with the right key. taken says how many of our readers
// take them: 0 none, 1 the one that does not look into the payload, 2 all but
// verify, which insists on claims too, 3 all. ALG and KID stand for the
// issuer's.
var nasties = []struct {
	name, header, payload string
	taken                 int
}{
	{"good", header, claims, 3},
	{"good, spaced", ` { "typ" : "at+jwt" , "kid" : "KID" , "alg" : "ALG" } `, "\n" + claims + "\n", 3},
	{"good, escaped names", `{"\u0061lg":"ALG","kid":"KID","t\u0079p":"at+jwt"}`, `{"s\u0075b":"u1"}`, 2},
	{"good, another typ: the caller's to refuse", `{"alg":"ALG","kid":"KID","typ":"dpop+jwt"}`, claims, 2},
	{"good, a folded claim: the caller's to refuse", header, `{"sub":"u1","x":{"SUB":"u2"}}`, 2},
	{"good, deep", header, strings.Repeat(`{"a":`, 16) + "1" + strings.Repeat("}", 16), 2},
	{"good, all kinds of values", header, `{"a":[1,-0,1.5e3,true,false,null,"\ud83d\ude00\u0000\/"],"b":{},"":[]}`, 2},

	{"claims: aud a list of one", header, but(`"aud":"orders"`, `"aud":["orders"]`), 3},
	{"claims: nbf past", header, but(`"iat"`, `"nbf":1763770000,"iat"`), 3},
	{"claims: the application's own", header, but(`"roles"`, `"plan":{"of":["gold",1.50]},"roles"`), 3},
	{"claims: no auth_time, amr, roles", header, but(`,"auth_time":1763760000,"amr":["pwd"]`, ""), 3},
	{"claims: an escaped name and value", header, but(`"sub":"u1"`, `"s\u0075b":"\u0075\u0031"`), 3},
	{"claims: expired within the leeway", header, but(`"iat":1763770000,"exp":1763770060`, `"iat":1763769000,"exp":1763770006`), 3},
	{"claims: expired", header, but(`"iat":1763770000,"exp":1763770060`, `"iat":1763769000,"exp":1763770005`), 2},
	{"claims: from the future", header, but(`"iat":1763770000`, `"iat":1763770016`), 2},
	{"claims: nbf in the future", header, but(`"iat"`, `"nbf":1763770016,"iat"`), 2},
	{"claims: lives too long", header, but(`"exp":1763770060`, `"exp":1763773601`), 2},
	{"claims: exp before iat", header, but(`"exp":1763770060`, `"exp":1763770000`), 2},
	{"claims: exp a string", header, but(`"exp":1763770060`, `"exp":"1763770060"`), 2},
	{"claims: exp a fraction", header, but(`"exp":1763770060`, `"exp":1763770060.5`), 2},
	{"claims: exp null", header, but(`"exp":1763770060`, `"exp":null`), 2},
	{"claims: no exp", header, but(`,"exp":1763770060`, ""), 2},
	{"claims: no iat", header, but(`"iat":1763770000,`, ""), 2},
	{"claims: another iss", header, but("https://app.example", "https://app.example.evil"), 2},
	{"claims: iss with a slash", header, but("https://app.example", "https://app.example/"), 2},
	{"claims: another aud", header, but(`"aud":"orders"`, `"aud":"billing"`), 2},
	{"claims: aud in capitals", header, but(`"aud":"orders"`, `"aud":"Orders"`), 2},
	{"claims: two aud", header, but(`"aud":"orders"`, `"aud":["orders","billing"]`), 2},
	{"claims: aud an empty list", header, but(`"aud":"orders"`, `"aud":[]`), 2},
	{"claims: no aud", header, but(`"aud":"orders",`, ""), 2},
	{"claims: no sub", header, but(`"sub":"u1",`, ""), 2},
	{"claims: sub a number", header, but(`"sub":"u1"`, `"sub":1`), 2},
	{"claims: no sid", header, but(`"sid":"3fZk81Yc0aHq72LmN4pRsT9v",`, ""), 2},
	{"claims: no jti", header, but(`"jti":"j1",`, ""), 2},
	{"claims: no client_id", header, but(`"client_id":"default",`, ""), 2},
	{"claims: no epoch", header, but(`"epoch":1763700000000001,`, ""), 2},
	{"claims: epoch with an exponent", header, but(`1763700000000001`, `1e15`), 2},
	{"claims: roles a string", header, but(`["admin"]`, `"admin"`), 2},
	{"claims: SUB beside sub", header, but(`"sub":"u1"`, `"sub":"u1","SUB":"u2"`), 2},
	{"claims: EXP in place of exp", header, but(`"exp"`, `"EXP"`), 2},
	{"claims: bound to a key", header, but(`"roles"`, `"cnf":{"jkt":"x"},"roles"`), 2},
	{"typ JWT", `{"alg":"ALG","kid":"KID","typ":"JWT"}`, claims, 2},
	{"typ AT+JWT", `{"alg":"ALG","kid":"KID","typ":"AT+JWT"}`, claims, 2},
	{"typ with the media type's prefix", `{"alg":"ALG","kid":"KID","typ":"application/at+jwt"}`, claims, 2},

	{"alg none", `{"alg":"none","kid":"KID","typ":"at+jwt"}`, claims, 0},
	{"alg none, then the right one", `{"alg":"none","alg":"ALG","kid":"KID","typ":"at+jwt"}`, claims, 0},
	{"the right alg, then none", `{"alg":"ALG","kid":"KID","typ":"at+jwt","alg":"none"}`, claims, 0},
	{"ALG in capitals", `{"ALG":"ALG","kid":"KID","typ":"at+jwt"}`, claims, 0},
	{"alg HS256", `{"alg":"HS256","kid":"KID","typ":"at+jwt"}`, claims, 0},
	{"kid twice", `{"alg":"ALG","kid":"other","kid":"KID","typ":"at+jwt"}`, claims, 0},
	{"no kid", `{"alg":"ALG","typ":"at+jwt"}`, claims, 0},
	{"another kid", `{"alg":"ALG","kid":"other","typ":"at+jwt"}`, claims, 0},
	{"no typ", `{"alg":"ALG","kid":"KID"}`, claims, 0},
	{"crit", `{"alg":"ALG","kid":"KID","typ":"at+jwt","crit":["exp"],"exp":1}`, claims, 0},
	{"crit empty", `{"alg":"ALG","kid":"KID","typ":"at+jwt","crit":[]}`, claims, 0},
	{"b64", `{"alg":"ALG","kid":"KID","typ":"at+jwt","b64":true}`, claims, 0},
	{"jku", `{"alg":"ALG","kid":"KID","typ":"at+jwt","jku":"https://evil.example"}`, claims, 0},
	{"jwk", `{"alg":"ALG","kid":"KID","typ":"at+jwt","jwk":{"kty":"oct","k":"AA"}}`, claims, 0},
	{"x5c", `{"alg":"ALG","kid":"KID","typ":"at+jwt","x5c":["AA"]}`, claims, 0},
	{"unknown member", `{"alg":"ALG","kid":"KID","typ":"at+jwt","x":0}`, claims, 0},
	{"header with a byte order mark", "\uFEFF" + header, claims, 0},
	{"header with data after", header + "{}", claims, 0},
	{"header with invalid UTF-8", "{\"alg\":\"ALG\",\"kid\":\"KID\",\"typ\":\"\xff\"}", claims, 0},
	{"header too long", header + strings.Repeat(" ", 1024), claims, 0},
	{"header not JSON", "x", claims, 0},
	{"header null", "null", claims, 0},

	{"empty payload", header, "", 0},
	{"token too long", header, `{"a":"` + strings.Repeat("a", 8<<10) + `"}`, 0},

	{"payload not JSON", header, "foo", 1},
	{"payload null", header, "null", 1},
	{"payload a list", header, "[]", 1},
	{"payload nested token", header, "eyJhbGciOiJub25lIn0.e30.", 1},
	{"sub twice", header, `{"sub":"u1","sub":"u2"}`, 1},
	{"sub twice, escaped", header, `{"sub":"u1","\u0073ub":"u2"}`, 1},
	{"sub twice below", header, `{"a":{"sub":"u1","sub":"u2"}}`, 1},
	{"payload with a byte order mark", header, "\uFEFF" + claims, 1},
	{"payload with data after", header, claims + "x", 1},
	{"payload with NUL after", header, claims + "\x00", 1},
	{"payload with invalid UTF-8", header, "{\"sub\":\"\xff\"}", 1},
	{"payload with a lone surrogate", header, `{"sub":"\ud800"}`, 1},
	{"payload too deep", header, strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17), 1},
	{"payload with a long number", header, `{"exp":123456789012345678901}`, 1},
	{"payload with a huge number", header, `{"exp":1e999}`, 1},
	{"payload with NaN", header, `{"exp":NaN}`, 1},
	{"payload with a comment", header, `{/**/}`, 1},
	{"payload with a comma too many", header, `{"a":1,}`, 1},
}

// respellings are other texts for the same token, some of which general
// libraries take.
func respellings(token string) []string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[1] == "" {
		return nil
	}
	h, p, s := parts[0], parts[1], parts[2]
	join := func(h, p, s string) string { return h + "." + p + "." + s }
	out := []string{
		token + "=", token + "==", join(h+"=", p, s), join(h, p+"=", s), token + "\n", token + "\r\n", "\n" + token, " " + token, token + " ", token + "\x00", "\uFEFF" + token,
		join(h, p+"\n", s), join(h[:1]+"\r"+h[1:], p, s), join(h, p, s[:1]+"\n"+s[1:]), join(h+" ", p, s), token + ".", "." + token, h + ".." + p + "." + s, h + ".." + s, h + "." + p, h + "." + p + ".",
		join(h, p, s+"A"), join(h, p, s+"AAAA"), join(h, p, "AAAA"+s), join(h, p+"AAAA", s), token + "." + token, "Bearer " + token,
		`{"protected":"` + h + `","payload":"` + p + `","signature":"` + s + `"}`, `{"payload":"` + p + `","signatures":[{"protected":"` + h + `","signature":"` + s + `"}]}`,
	}
	for n, part := range parts {
		if standard := strings.NewReplacer("-", "+", "_", "/").Replace(part); standard != part {
			changed := [3]string{h, p, s}
			changed[n] = standard
			out = append(out, join(changed[0], changed[1], changed[2]))
		}
		// The other last characters that differ in unused bits alone.
		unused := map[int]int{2: 16, 3: 4}[len(part)%4]
		last := strings.IndexByte(alphabet, part[len(part)-1])
		for i := 1; i < unused; i++ {
			changed := [3]string{h, p, s}
			changed[n] = part[:len(part)-1] + string(alphabet[last^i])
			out = append(out, join(changed[0], changed[1], changed[2]))
		}
	}
	return out
}
