package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestInt(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "7": 7, "-7": -7, "1763770000": 1763770000, "9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64} {
		if got, err := Int([]byte(text)); err != nil || got != want {
			t.Errorf("%s: got %d, %v", text, got, err)
		}
	}
	for _, text := range []string{ // SEC-65
		"", "-", "-0", "00", "01", "-01", "+1", "1.0", "1.5", "1e3", "1E0", "9223372036854775808", "-9223372036854775809", "99999999999999999999", "100000000000000000000",
		`"1"`, "null", "true", "[1]", "{}", " 1", "1 ", "1_0", "0x1", "１", "NaN", "Infinity", "1\n",
	} {
		var syntax *SyntaxError
		if got, err := Int([]byte(text)); !errors.As(err, &syntax) {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
	}
}

func TestStringStringsBool(t *testing.T) {
	for text, want := range map[string]string{`""`: "", `"a"`: "a", `"\u00e9\ud83d\ude00\\\"\/"`: "é😀\\\"/", "\"\u2028\"": "\u2028", `"\u0000"`: "\x00"} {
		if got, err := String([]byte(text)); err != nil || got != want {
			t.Errorf("%s: got %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", `"`, `a`, `"a`, `"a"x`, `"a""b"`, `null`, `1`, `["a"]`, `{}`, `"\ud800"`, "\"\xff\"", "\"\n\"", `'a'`} {
		if got, err := String([]byte(text)); err == nil {
			t.Errorf("%q: got %q", text, got)
		}
		if got, err := Strings([]byte("[" + text + ",1]")); err == nil {
			t.Errorf("[%q,1]: got %q", text, got)
		}
	}
	for text, want := range map[string][]string{"[]": {}, `["a"]`: {"a"}, ` [ "a" , "\n" ] `: {"a", "\n"}} {
		if got, err := Strings([]byte(text)); err != nil || got == nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", `"a"`, "null", `{"a":1}`, `["a",]`, `["a"`, `["a"]]`, `[["a"]]`, `[null]`, `["a",{"b":1}]`} {
		if got, err := Strings([]byte(text)); err == nil {
			t.Errorf("%s: got %q", text, got)
		}
	}
	for text, want := range map[string]bool{"true": true, "false": false} {
		if got, err := Bool([]byte(text)); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "True", "1", `"true"`, "null", "true "} {
		if got, err := Bool([]byte(text)); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestAppendString(t *testing.T) {
	for s, want := range map[string]string{
		"": `""`, "a/b<é😀\u2028\x7f": "\"a/b<é😀\u2028\x7f\"", "\"\\": `"\"\\"`, "\b\f\n\r\t": `"\b\f\n\r\t"`, "\x00\x1f": `"\u0000\u001f"`,
		"a\xffb\xc3": "\"a\uFFFDb\uFFFD\"", "\xed\xa0\x80": "\"\uFFFD\uFFFD\uFFFD\"", "\uFFFD": "\"\uFFFD\"",
	} {
		if got := string(AppendString([]byte("x"), s)); got != "x"+want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	for range 5000 {
		s := randomText(r)
		written := AppendString(nil, s)
		got, err := String(written)
		if err != nil || got != strings.ToValidUTF8(s, "\uFFFD") && utf8.ValidString(s) {
			t.Fatalf("seed %d: %q: wrote %s, read %q, %v", seed, s, written, got, err)
		}
		var other string
		if err := json.Unmarshal(written, &other); err != nil || other != got {
			t.Fatalf("seed %d: %q: encoding/json reads %q, %v", seed, s, other, err)
		}
	}
}

func randomText(r *rand.Rand) string {
	var out []byte
	for range r.IntN(12) {
		switch r.IntN(4) {
		case 0:
			out = append(out, byte(r.IntN(256)))
		case 1:
			out = append(out, `"\/bfnrtu`[r.IntN(9)])
		case 2:
			out = utf8.AppendRune(out, rune(r.IntN(utf8.MaxRune+1)))
		default:
			out = append(out, byte('a'+r.IntN(26)))
		}
	}
	return string(out)
}

// compare checks one document against encoding/json: what is taken here is
// taken there, member by member with the same values.
func compare(t *testing.T, data []byte) {
	t.Helper()
	got := map[string]any{}
	err := Object(data, func(name string, value []byte) error {
		if _, ok := got[name]; ok {
			t.Fatalf("%q: %q twice", data, name)
		}
		if !bytes.Equal(value, bytes.TrimSpace(value)) || len(value) == 0 {
			t.Fatalf("%q: value %q", data, value)
		}
		var v any
		if err := json.Unmarshal(value, &v); err != nil {
			t.Fatalf("%q: encoding/json refuses the value %q: %v", data, value, err)
		}
		if s, ok := v.(string); ok {
			if mine, err := String(value); err != nil || mine != s {
				t.Fatalf("%q: %q reads %q, %v", data, value, mine, err)
			}
		}
		if n, err := Int(value); err == nil {
			var other int64
			if err := json.Unmarshal(value, &other); err != nil || other != n {
				t.Fatalf("%q: %q reads %d, %v", data, value, n, err)
			}
		}
		if list, err := Strings(value); err == nil {
			var other []string
			if err := json.Unmarshal(value, &other); err != nil || !slices.Equal(other, list) {
				t.Fatalf("%q: %q reads %q, %v", data, value, list, err)
			}
		}
		if b, err := Bool(value); err == nil && v != b {
			t.Fatalf("%q: %q reads %v", data, value, b)
		}
		got[name] = v
		return nil
	})
	if err != nil {
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Fatalf("%q: untyped error %v", data, err)
		}
		return
	}
	var want map[string]any
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatalf("%q: taken, but encoding/json says %v", data, err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%q: got %v, encoding/json %v", data, got, want)
	}
}

var seeds = []string{
	`{}`, `{"a":1,"b":"x","c":["d"],"e":{"f":null},"g":true}`, `{"a":1,"\u0061":2}`, `{"a":"\ud83d\ude00"}`, `{"a":[1e3,-0.5]}`,
	`{"iss":"https://app.example","aud":["orders"],"exp":1763770060,"epoch":1763700000000001}`,
}

func FuzzObject(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(compare)
}

// The same on random edits of good documents.
func TestAgainstEncodingJSON(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	pieces := []string{`"`, `\`, `\u0061`, `\ud83d`, `\ude00`, `{`, `}`, `[`, `]`, `,`, `:`, `0`, `-`, `.`, `e`, `1`, ` `, "\n", `null`, `true`, `"a":1,`, "\xff", "\u2028", `"a"`}
	taken := 0
	for range 50000 {
		doc := []byte(seeds[r.IntN(len(seeds))])
		for range 1 + r.IntN(3) {
			from := r.IntN(len(doc) + 1)
			to := from + r.IntN(min(3, len(doc)-from)+1)
			doc = slices.Replace(doc, from, to, []byte(pieces[r.IntN(len(pieces))])...)
		}
		compare(t, doc)
		if Object(doc, nil) == nil {
			taken++
		}
	}
	if taken < 500 {
		t.Errorf("only %d of the edited documents were taken: too few to compare", taken)
	}
}

func BenchmarkObject(b *testing.B) {
	doc := []byte(`{"iss":"https://app.example","sub":"01JD5M0T1ZQ7V7W9M8H3C5K2XA","aud":"orders","client_id":"default","sid":"3fZk81Yc0aHq72LmN4pRsT9v",` +
		`"iat":1763770000,"exp":1763770060,"jti":"01JD5M0T1ZQ7V7W9M8H3C5K2XB","auth_time":1763760000,"amr":["pwd"],"epoch":1763700000000001,"roles":["admin","editor"]}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := Object(doc, func(string, []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
