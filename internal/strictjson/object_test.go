package strictjson

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func nest(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }

func wide(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"m%d":%d`, i, i)
	}
	return "{" + strings.TrimPrefix(b.String(), ",") + "}"
}

func TestObjectAccepts(t *testing.T) {
	for _, doc := range []string{
		`{}`, " \t\r\n{ } \n", `{"a":1}`, `{"a":{"a":{"a":[]}},"b":[{"a":1},{"a":2}]}`,
		`{"":""}`, `{"a":"\ud83d\ude00\u0000\/\b\f\n\r\t\"\\"}`, `{"a":"` + "\u2028\uFEFF\U0001F600\x7f" + `"}`,
		`{"a":[0,-0,-1,1.5,1e3,1E+3,1e-3,12345678901234567890]}`, `{"a":[true,false,null]}`,
		`{"a":1,"A":2}`, // names are told apart exactly; folding is the caller's rule
		nest(MaxDepth), wide(MaxMembers), `{"a":` + wide(MaxMembers) + `,"b":[` + wide(MaxMembers) + `]}`,
	} {
		if err := Object([]byte(doc), nil); err != nil {
			t.Errorf("%.60s: %v", doc, err)
		}
	}
}

func TestObjectRefuses(t *testing.T) {
	for _, c := range []struct{ name, doc string }{
		{"empty", ``}, {"blank", ` `}, {"not an object", `[]`}, {"not an object", `"a"`}, {"not an object", `null`},
		{"SEC-59 duplicate name", `{"a":1,"a":1}`},
		{"SEC-59 duplicate name, escaped", `{"a":1,"\u0061":1}`},
		{"SEC-59 duplicate name, escaped slash", `{"/":1,"\/":1}`},
		{"SEC-59 duplicate name, pair", `{"😀":1,"\ud83d\ude00":1}`},
		{"SEC-59 duplicate name below", `{"b":{"a":1,"a":1}}`},
		{"SEC-59 duplicate name in an array", `{"b":[0,{"a":1,"a":1}]}`},
		{"SEC-59 duplicate name around an object", `{"b":1,"a":{"c":1},"b":1}`},
		{"SEC-59 duplicate empty name", `{"":1,"":2}`},
		{"SEC-59 trailing data", `{}{}`}, {"SEC-59 trailing data", `{} x`}, {"SEC-59 trailing NUL", "{}\x00"}, {"SEC-59 trailing brace", `{}}`},
		{"SEC-59 byte order mark", "\uFEFF{}"}, {"SEC-59 byte order mark after", "{}\uFEFF"},
		{"SEC-59 UTF-16", "\xff\xfe{\x00}\x00"},
		{"SEC-59 invalid UTF-8", "{\"a\":\"\xff\"}"}, {"SEC-59 invalid UTF-8 in a name", "{\"\xc3\":1}"},
		{"SEC-59 overlong UTF-8", "{\"a\":\"\xc0\xaf\"}"}, {"SEC-59 surrogate in UTF-8", "{\"a\":\"\xed\xa0\x80\"}"},
		{"SEC-59 cut UTF-8", "{\"a\":\"\xf0\x9f\x98\"}"}, {"SEC-59 UTF-8 beyond U+10FFFF", "{\"a\":\"\xf4\x90\x80\x80\"}"},
		{"SEC-59 lone high surrogate", `{"a":"\ud800"}`}, {"SEC-59 lone high surrogate", `{"a":"\ud800x"}`},
		{"SEC-59 lone high surrogate", `{"a":"\ud800\n"}`}, {"SEC-59 lone high surrogate", `{"a":"\ud83d\u0041"}`},
		{"SEC-59 lone low surrogate", `{"a":"\udc00"}`}, {"SEC-59 swapped surrogates", `{"a":"\udc00\ud800"}`},
		{"SEC-59 two high surrogates", `{"a":"\ud800\ud800"}`}, {"SEC-59 lone surrogate in a name", `{"\ud800":1}`},
		{"SEC-58 depth", nest(MaxDepth + 1)}, {"SEC-58 depth of arrays", `{"a":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`},
		{"SEC-58 depth, no end", `{"a":` + strings.Repeat("[", 1e6)},
		{"SEC-58 members", wide(MaxMembers + 1)}, {"SEC-58 members below", `{"a":` + wide(MaxMembers+1) + `}`},
		{"SEC-58 number length", `{"a":123456789012345678901}`}, {"SEC-58 number length", `{"a":0.1234567890123456789}`},
		{"SEC-58 number length", `{"a":-00000000000000000000001}`},
		{"number beyond a float", `{"a":1e999}`}, {"number beyond a float", `{"a":-1e309}`},
		{"number", `{"a":01}`}, {"number", `{"a":-}`}, {"number", `{"a":+1}`}, {"number", `{"a":.5}`}, {"number", `{"a":1.}`},
		{"number", `{"a":1e}`}, {"number", `{"a":1e+}`}, {"number", `{"a":0x10}`}, {"number", `{"a":NaN}`}, {"number", `{"a":-Infinity}`},
		{"number", `{"a":1_000}`}, {"number", `{"a":--1}`}, {"number", `{"a":１}`},
		{"comma", `{,}`}, {"comma", `{"a":1,}`}, {"comma", `{"a":1 "b":2}`}, {"comma", `{"a":[1,]}`}, {"comma", `{"a":[,1]}`}, {"comma", `{"a":[1 2]}`},
		{"colon", `{"a"}`}, {"colon", `{"a" 1}`}, {"colon", `{"a"::1}`}, {"name", `{a:1}`}, {"name", `{'a':1}`}, {"name", `{1:1}`}, {"name", `{null:1}`},
		{"end", `{`}, {"end", `{"`}, {"end", `{"a`}, {"end", `{"a"`}, {"end", `{"a":`}, {"end", `{"a":1`}, {"end", `{"a":1,`}, {"end", `{"a":[`}, {"end", `{"a":"\`},
		{"end", `{"a":"\u12`}, {"end", `{"a":"\ud83d\u`}, {"end", `{"a":"x\n`}, {"end", `{"a":t`}, {"end", `{"a":tru`}, {"end", `{"a":-`},
		{"escape", `{"a":"\x41"}`}, {"escape", `{"a":"\u12G4"}`}, {"escape", `{"a":"\U0041"}`}, {"escape", `{"a":"\'"}`}, {"escape", `{"a":"\` + "\n" + `"}`},
		{"control character", "{\"a\":\"\n\"}"}, {"control character", "{\"a\":\"\x00\"}"}, {"control character after an escape", "{\"a\":\"\\n\x1f\"}"},
		{"literal", `{"a":True}`}, {"literal", `{"a":nul}`}, {"literal", `{"a":truex}`}, {"literal", `{"a":undefined}`},
		{"comment", `{/**/}`}, {"comment", "{}//"}, {"white space", "{\u00a0}"}, {"white space", "{\v}"}, {"white space", "{\f}"},
		{"bracket", `{"a":[}]`}, {"bracket", `{"a":{]}`},
	} {
		calls := 0
		err := Object([]byte(c.doc), func(string, []byte) error { calls++; return nil })
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%s: %.60q: got %v", c.name, c.doc, err)
		} else if syntax.Offset < 0 || syntax.Offset > len(c.doc) || syntax.Problem == "" {
			t.Errorf("%s: %.60q: offset %d of %d", c.name, c.doc, syntax.Offset, len(c.doc))
		}
		if calls > 0 {
			t.Errorf("%s: %.60q: members were handed out of a faulty document", c.name, c.doc)
		}
	}
}

func TestObjectHandsOutMembers(t *testing.T) {
	var got []string
	doc := " { \"a\" : [ 1 , {\"x\":2} ] ,\"\\u0062\":\"\\n\", \"c\":{\"a\":{\"q\":1},\"d\":1},\"d\": -1.5e3\n} "
	err := Object([]byte(doc), func(name string, value []byte) error {
		got = append(got, name+"="+string(value))
		return nil
	})
	want := []string{`a=[ 1 , {"x":2} ]`, `b="\n"`, `c={"a":{"q":1},"d":1}`, `d=-1.5e3`}
	if err != nil || strings.Join(got, "|") != strings.Join(want, "|") {
		t.Fatalf("got %q, %v", got, err)
	}
	stop := errors.New("stop")
	calls := 0
	err = Object([]byte(doc), func(string, []byte) error { calls++; return stop })
	if err != stop || calls != 1 {
		t.Fatalf("got %v after %d calls", err, calls)
	}
}

func TestSEC60FoldsTo(t *testing.T) {
	for name, want := range map[string]string{
		"": "", "sub": "sub", "SUB": "sub", "sUb": "sub", "\u017Fub": "sub", "\u017FUB": "sub", "\u212Aid": "kid", "\u212AID": "kid",
		"ſcope": "scope", "client_ID": "client_id", "client-id": "client-id", "straße": "straße", "ÄB": "Äb", "x5t#S256": "x5t#s256",
	} {
		if got := FoldsTo(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}
