package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

const (
	issuer   = "https://app.example"
	audience = "orders"
	now      = 1763770000
	sid      = "7Gq0123456789abcdefghijk"
	subject  = "user-1"
	jti      = "jti-1"
	epoch    = 41
)

// claims are members of a payload in their order, as JSON text.
type claims [][2]string

func usual() claims {
	return claims{
		{"iss", text(issuer)}, {"sub", text(subject)}, {"aud", text(audience)}, {"client_id", text("default")}, {"sid", text(sid)},
		{"iat", fmt.Sprint(now - 10)}, {"exp", fmt.Sprint(now + 50)}, {"jti", text(jti)}, {"auth_time", fmt.Sprint(now - 600)},
		{"amr", `["pwd"]`}, {"epoch", fmt.Sprint(epoch)}, {"roles", `["admin","clerk"]`}, {"scope", text("orders:read orders:write")},
	}
}

func text(s string) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err)
	}
	return strings.TrimSpace(out.String())
}

// with replaces a member or appends it.
func (c claims) with(name string, value any) claims {
	c = c.clone()
	raw := fmt.Sprint(value)
	for i := range c {
		if c[i][0] == name {
			c[i][1] = raw
			return c
		}
	}
	return append(c, [2]string{name, raw})
}

// and appends a member, be it there or not.
func (c claims) and(name, raw string) claims { return append(c.clone(), [2]string{name, raw}) }

func (c claims) without(name string) claims {
	return slices.DeleteFunc(c.clone(), func(m [2]string) bool { return m[0] == name })
}

func (c claims) clone() claims { return append(claims(nil), c...) }

func (c claims) json() string {
	var members []string
	for _, m := range c {
		members = append(members, text(m[0])+":"+m[1])
	}
	return "{" + strings.Join(members, ",") + "}"
}

const header = `{"alg":"ES256","typ":"at+jwt","kid":"es1"}`

// sign makes a token of a header and a payload, whatever they are, with the
// key and algorithm named.
func sign(head, payload, key string) string {
	signed := b64([]byte(head)) + "." + b64([]byte(payload))
	return signed + "." + b64(signature(signed, key))
}

func signature(signed, key string) []byte {
	switch key {
	case "es1":
		return es256(es1, signed)
	case "es2":
		return es256(es2, signed)
	case "ed1":
		return eddsa(ed1, signed)
	case "rs1":
		return rs256(rs1, signed)
	case "ps1":
		return ps256(rs1, signed, seed("salt"))
	}
	panic(key)
}

func (c claims) token() string { return sign(header, c.json(), "es1") }

// parts splits a token, to be put together otherwise.
func parts(token string) (head, payload, signature string) {
	p := strings.Split(token, ".")
	return p[0], p[1], p[2]
}

// twin is the other signature that ECDSA has for the same text: (r, n-s).
func twin(token string) string {
	head, payload, _ := parts(token)
	sig := es256(es1, head+"."+payload)
	n := es1.Curve.Params().N
	s := new(big.Int).Sub(n, new(big.Int).SetBytes(sig[32:]))
	s.FillBytes(sig[32:])
	return head + "." + payload + "." + b64(sig)
}

// respelled is base64url whose unused bits are not zero: it decodes to the same.
func respelled(part string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	if len(part)%4 == 0 {
		panic("no unused bits")
	}
	last := strings.IndexByte(alphabet, part[len(part)-1])
	return part[:len(part)-1] + string(alphabet[last|1])
}

// ofLength pads the payload until the token has that many characters.
func ofLength(n int) string {
	head, _, _ := parts(usual().token())
	room := n - len(head) - 2 - 86
	for size := room * 3 / 4; ; size-- {
		if payload := padded(size); len(b64([]byte(payload))) == room {
			return sign(header, payload, "es1")
		}
	}
}

func padded(size int) string {
	have := len(usual().and("pad", `""`).json())
	return usual().and("pad", text(strings.Repeat("x", size-have))).json()
}

func number(n int64) string { return strconv.FormatInt(n, 10) }
