package opaque

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestSEC01RandomAndUnique(t *testing.T) {
	if testing.Short() {
		t.Skip("a million secrets take a second")
	}
	seen := make(map[string]struct{}, 1_000_000)
	id := NewID()
	for range 1_000_000 {
		s, _ := New(SessionToken, id)
		if _, ok := seen[s.Reveal()]; ok {
			t.Fatal("the same secret came twice")
		}
		seen[s.Reveal()] = struct{}{}
	}
}

func TestSEC02ShapeAndChecksum(t *testing.T) {
	id := NewSelector("user-1")
	s, hash := New(SessionToken, id)
	text := s.Reveal()
	if len(text) != 79 || len(text) >= 96 {
		t.Fatalf("length %d", len(text))
	}
	p, err := Parse(SessionToken, text)
	if err != nil || p.Selector != id || !p.Matches(hash) {
		t.Fatalf("round trip: %v, %q", err, p.Selector)
	}
	if _, err := Parse(APIKey, text); err == nil {
		t.Error("a session token passed as an API key")
	}
	// Any single changed character is caught by the checksum (CRC32 finds every burst under 32 bits).
	for i := range text {
		for _, c := range []byte{'0', 'z', '-', 0} {
			if text[i] == c {
				continue
			}
			bad := text[:i] + string(c) + text[i+1:]
			if _, err := Parse(SessionToken, bad); err == nil {
				t.Fatalf("changed character %d accepted", i)
			}
		}
	}
	for _, bad := range []string{"", "cf_st_", text[:78], text + "0", " " + text, strings.ToUpper(text)} {
		if _, err := Parse(SessionToken, bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
	other, _ := New(SessionToken, id)
	q, _ := Parse(SessionToken, other.Reveal())
	if q.Matches(hash) {
		t.Error("another secret matches the hash")
	}
}

func TestSelectorsOfOneSubjectShareAShard(t *testing.T) {
	a, b := NewSelector("alice"), NewSelector("alice")
	if a[:2] != b[:2] || a == b || !IsSelector(a) {
		t.Errorf("%q %q", a, b)
	}
}

func TestSEC123SecretsRedactThemselves(t *testing.T) {
	s, _ := New(APIKey, NewID())
	js, _ := json.Marshal(map[string]any{"s": s})
	out := fmt.Sprintf("%v %+v %#v %s %q %s", s, s, s, s, s, js)
	if strings.Contains(out, "cf_sk_") {
		t.Errorf("leaks: %s", out)
	}
}

func FuzzParse(f *testing.F) {
	s, _ := New(SessionToken, NewID())
	f.Add(s.Reveal())
	f.Add("cf_st_")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(SessionToken, text)
		if err == nil && (len(text) != 79 || !IsSelector(p.Selector)) {
			t.Fatalf("accepted %q", text)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	s, hash := New(SessionToken, NewID())
	b.ReportAllocs()
	for b.Loop() {
		p, err := Parse(SessionToken, s.Reveal())
		if err != nil || !p.Matches(hash) {
			b.Fatal(err)
		}
	}
}
