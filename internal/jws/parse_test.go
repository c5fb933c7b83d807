package jws

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Headers that are refused though the signature over them is right.
func TestRefusedHeaders(t *testing.T) {
	k := testKeys()[EdDSA]
	if _, err := k.read(k.sign(t, `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt"}`, testPayload)); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("k", MaxKID+1)
	for _, c := range []struct{ name, header string }{
		{"SEC-41 none", `{"alg":"none","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-41 None", `{"alg":"None","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-41 NONE", `{"alg":"NONE","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-41 nOnE", `{"alg":"nOnE","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-41 none, escaped", `{"alg":"\u006eone","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-41 none and a space", `{"alg":"none ","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-41 alg missing", `{"kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-41 alg empty", `{"alg":"","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-41 alg null", `{"alg":null,"kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-41 alg a list", `{"alg":["EdDSA"],"kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-41 alg in other case", `{"alg":"eddsa","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-41 alg with a space", `{"alg":" EdDSA","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-41 alg with NUL", `{"alg":"EdDSA\u0000","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-41 alg unknown", `{"alg":"ES256K","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-41 alg unknown", `{"alg":"RS1","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-43 HS256", `{"alg":"HS256","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-43 HS512", `{"alg":"HS512","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-59 alg twice, none first", `{"alg":"none","alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-59 alg twice, none last", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","alg":"none"}`},
		{"SEC-59 alg twice, the same", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","alg":"EdDSA"}`},
		{"SEC-59 alg twice, escaped", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","\u0061lg":"EdDSA"}`},
		{"SEC-59 kid twice", `{"alg":"EdDSA","kid":"k-EdDSA","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-59 typ twice", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","typ":"JWT"}`},
		{"SEC-60 ALG", `{"alg":"EdDSA","ALG":"none","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-60 only Alg", `{"Alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-60 Kelvin kid", "{\"alg\":\"EdDSA\",\"kid\":\"k-EdDSA\",\"\u212Aid\":\"x\",\"typ\":\"at+jwt\"}"},
		{"SEC-47 kid missing", `{"alg":"EdDSA","typ":"at+jwt"}`},
		{"SEC-47 kid empty", `{"alg":"EdDSA","kid":"","typ":"at+jwt"}`},
		{"SEC-47 kid null", `{"alg":"EdDSA","kid":null,"typ":"at+jwt"}`},
		{"SEC-47 kid a number", `{"alg":"EdDSA","kid":1,"typ":"at+jwt"}`},
		{"SEC-47 kid a path", `{"alg":"EdDSA","kid":"../../dev/null","typ":"at+jwt"}`},
		{"SEC-47 kid SQL", `{"alg":"EdDSA","kid":"x' UNION SELECT 'key","typ":"at+jwt"}`},
		{"SEC-47 kid a URL", `{"alg":"EdDSA","kid":"http://evil.example/k","typ":"at+jwt"}`},
		{"SEC-47 kid not ASCII", `{"alg":"EdDSA","kid":"kéy","typ":"at+jwt"}`},
		{"SEC-47 kid with NUL", `{"alg":"EdDSA","kid":"k-EdDSA\u0000","typ":"at+jwt"}`},
		{"SEC-47 kid too long", `{"alg":"EdDSA","kid":"` + long + `","typ":"at+jwt"}`},
		{"SEC-49 crit", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","crit":["exp"],"exp":1}`},
		{"SEC-49 crit empty", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","crit":[]}`},
		{"SEC-49 crit null", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","crit":null}`},
		{"SEC-49 crit names alg", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","crit":["alg"]}`},
		{"SEC-49 b64", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","b64":false,"crit":["b64"]}`},
		{"SEC-49 b64 true", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","b64":true}`},
		{"SEC-46 jku", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","jku":"https://evil.example/jwks"}`},
		{"SEC-46 x5u", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","x5u":"https://evil.example/c"}`},
		{"SEC-46 jwk", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","jwk":{"kty":"OKP"}}`},
		{"SEC-46 x5c", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","x5c":[]}`},
		{"SEC-46 x5t", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","x5t":"AA"}`},
		{"SEC-46 x5t#S256", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","x5t#S256":"AA"}`},
		{"SEC-50 cty", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","cty":"JWT"}`},
		{"SEC-51 zip", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","zip":"DEF"}`},
		{"SEC-50 enc", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","enc":"A128GCM"}`},
		{"unknown member", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","x":1}`},
		{"unknown empty member", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","":1}`},
		{"SEC-62 typ missing", `{"alg":"EdDSA","kid":"k-EdDSA"}`},
		{"SEC-62 typ empty", `{"alg":"EdDSA","kid":"k-EdDSA","typ":""}`},
		{"SEC-62 typ null", `{"alg":"EdDSA","kid":"k-EdDSA","typ":null}`},
		{"SEC-62 typ a list", `{"alg":"EdDSA","kid":"k-EdDSA","typ":["at+jwt"]}`},
		{"SEC-59 trailing data", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt"}{}`},
		{"SEC-59 byte order mark", "\uFEFF" + `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt"}`},
		{"SEC-59 invalid UTF-8", "{\"alg\":\"EdDSA\",\"kid\":\"k-EdDSA\",\"typ\":\"at+jwt\xff\"}"},
		{"SEC-59 lone surrogate", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"\ud800"}`},
		{"SEC-58 depth", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt","x":` + strings.Repeat("[", 400) + strings.Repeat("]", 400) + `}`},
		{"SEC-57 header size", `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt"}` + strings.Repeat(" ", MaxHeader)},
		{"not an object", `[]`}, {"not an object", `"EdDSA"`}, {"not JSON", `foo`}, {"an empty object", `{}`},
	} {
		if _, err := k.read(k.sign(t, c.header, testPayload)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %.80s: got %v", c.name, c.header, err)
		}
	}
	// The longest header is read.
	header := `{"alg":"EdDSA","kid":"k-EdDSA","typ":"at+jwt"}`
	header += strings.Repeat(" ", MaxHeader-len(header))
	if _, err := k.read(k.sign(t, header, testPayload)); err != nil {
		t.Error(err)
	}
}

// Texts of the wrong shape, each made from a good token.
func TestRefusedTexts(t *testing.T) {
	for alg, k := range testKeys() {
		good := k.token(t)
		parts := strings.Split(good, ".")
		header, payload, signature := parts[0], parts[1], parts[2]
		jsonForm := `{"protected":"` + header + `","payload":"` + payload + `","signature":"` + signature + `"}`
		for _, c := range []struct{ name, text string }{
			{"SEC-57 empty", ""}, {"SEC-57 no dot", header}, {"SEC-57 one dot", header + "." + payload}, {"SEC-57 dots alone", ".."},
			{"SEC-57 three dots", good + "."}, {"SEC-57 leading dot", "." + good}, {"SEC-50 five parts", good + ".AAAA.AAAA"}, {"SEC-57 a dot in the payload", header + ".." + payload + "." + signature},
			{"SEC-50 detached payload", header + ".." + signature}, {"SEC-41 no signature", header + "." + payload + "."}, {"no header", "." + payload + "." + signature},
			{"SEC-50 JSON serialisation", jsonForm}, {"SEC-50 general JSON serialisation", `{"payload":"` + payload + `","signatures":[` + jsonForm + `]}`},
			{"SEC-54 padding", good + "="}, {"SEC-54 padding", good + "=="}, {"SEC-54 padding of the payload", header + "." + payload + "=." + signature}, {"SEC-54 padding of the header", header + "==." + payload + "." + signature},
			{"SEC-54 LF at the end", good + "\n"}, {"SEC-54 CRLF at the end", good + "\r\n"}, {"SEC-54 LF in the header", header[:4] + "\n" + header[4:] + "." + payload + "." + signature},
			{"SEC-54 CR in the payload", header + "." + payload[:4] + "\r" + payload[4:] + "." + signature}, {"SEC-54 LF in the signature", good[:len(good)-2] + "\n" + good[len(good)-2:]},
			{"SEC-54 space", " " + good}, {"SEC-54 space", good + " "}, {"SEC-54 space", header + " ." + payload + "." + signature}, {"SEC-54 tab", good + "\t"}, {"SEC-54 NUL", good + "\x00"},
			{"SEC-54 percent escape", header + "%2E" + payload + "." + signature}, {"SEC-54 another dot", header + "．" + payload + "." + signature}, {"SEC-54 byte order mark", "\uFEFF" + good},
			{"SEC-54 other alphabet", header + "." + payload + "." + "+" + signature[1:]}, {"SEC-54 other alphabet", header + "." + payload + "." + "/" + signature[1:]},
			{"SEC-54 one character more", good + "A"}, {"SEC-54 not ASCII", good[:len(good)-1] + "é"},
			{"SEC-57 too long", good + strings.Repeat("A", MaxToken)}, {"Bearer", "Bearer " + good},
		} {
			if _, err := k.read(c.text); !errors.Is(err, ErrMalformed) && !(c.name == "SEC-54 one character more" && errors.Is(err, ErrSignature)) {
				t.Errorf("%s: %s: got %v", alg, c.name, err)
			}
		}
	}
}

// SEC-54: each of the other spellings of the last character of a part, which
// differ in unused bits only, is refused; and the text is what was signed, so
// that even a signature over a wrong spelling does not help.
func TestSEC54UnusedBits(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for alg, k := range testKeys() {
		for _, payload := range []string{`{"a":1}`, `{"a":12}`} { // 7 and 8 bytes: four and two unused bits
			good := k.sign(t, k.header(), payload)
			for part := range 3 {
				parts := strings.Split(good, ".")
				text := parts[part]
				last := strings.IndexByte(alphabet, text[len(text)-1])
				unused := map[int]int{2: 16, 3: 4}[len(text)%4]
				for i := 1; i < unused; i++ {
					parts[part] = text[:len(text)-1] + alphabet[last+i:last+i+1]
					if _, err := k.read(strings.Join(parts, ".")); !errors.Is(err, ErrMalformed) {
						t.Errorf("%s: part %d, last character %c for %c: %v", alg, part, alphabet[last+i], alphabet[last], err)
					}
					if part < 2 {
						if _, err := k.read(k.signText(t, parts[0]+"."+parts[1])); !errors.Is(err, ErrMalformed) {
							t.Errorf("%s: part %d signed so: %v", alg, part, err)
						}
					}
				}
			}
		}
	}
}

// SEC-57: what is too big costs no memory and no time that grows with it.
func TestSEC57ConstantMemory(t *testing.T) {
	dots, letters := strings.Repeat(".", 1e6), strings.Repeat("A", 1e6)
	worst := encode(`{"x":` + strings.Repeat("[", 500))
	for name, text := range map[string]string{
		"a million dots": dots, "dots up to the limit": dots[:MaxToken], "letters": letters, "a long header": letters[:5000] + ".A.A",
		"a long payload": "AAAA." + letters, "brackets": worst + ".AAAA.AAAA",
	} {
		best := time.Hour // of a few, since the machine is shared
		for range 10 {
			start := time.Now()
			if _, err := Parse(text); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: %v", name, err)
			}
			best = min(best, time.Since(start))
		}
		if best > 5*time.Millisecond {
			t.Errorf("%s: %v", name, best)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 10 {
			_, _ = Parse(text)
		}
		runtime.ReadMemStats(&after)
		if bytes := (after.TotalAlloc - before.TotalAlloc) / 10; bytes > 2*MaxToken {
			t.Errorf("%s: %d bytes a call", name, bytes)
		}
	}
}

func encode(header string) string { return base64url.EncodeToString([]byte(header)) }

// No error may carry what was in the token.
func TestSEC06ErrorsHoldNoToken(t *testing.T) {
	const secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ"
	k := testKeys()[EdDSA]
	for _, text := range []string{
		secret, secret + "." + secret + "." + secret, secret + "!." + secret + "." + secret, encode(`{"`+secret+`":1}`) + ".AAAA.AAAA",
		encode(`{"alg":"`+secret+`","kid":"`+secret+`","typ":"`+secret+`"}`) + ".AAAA.AAAA", encode(`{"alg":"EdDSA","kid":"`+secret+`","typ":"a"}`) + "." + secret + "." + secret,
	} {
		_, err := k.read(text)
		if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), secret) {
			t.Errorf("%v", err)
		}
	}
}
