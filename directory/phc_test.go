package directory

import (
	"strings"
	"testing"
)

// The reference implementation's hash of "password" under "somesalt".
const referencePHC = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"

func TestPHC(t *testing.T) {
	h, err := parsePHC(referencePHC)
	if err != nil {
		t.Fatal(err)
	}
	if h.Argon2id != (Argon2id{65536, 2, 1}) || string(h.salt) != "somesalt" || h.String() != referencePHC {
		t.Fatalf("read %+v, written %s", h, h)
	}
	if !h.matches([]byte("password")) || h.matches([]byte("passwore")) {
		t.Error("the reference hash is not matched by its password alone")
	}
	for _, bad := range []string{
		"", "$", strings.TrimPrefix(referencePHC, "$"), referencePHC + "$", referencePHC + "=", referencePHC + "\n",
		strings.Replace(referencePHC, "argon2id", "argon2i", 1),
		strings.Replace(referencePHC, "v=19", "v=16", 1),
		strings.Replace(referencePHC, "v=19$", "", 1),
		strings.Replace(referencePHC, "m=65536", "m=065536", 1),
		strings.Replace(referencePHC, "m=65536", "m=+65536", 1),
		strings.Replace(referencePHC, "m=65536", "m=4294967296", 1),
		strings.Replace(referencePHC, "m=65536", "m=2097152", 1),
		strings.Replace(referencePHC, "m=65536,t=2", "t=2,m=65536", 1),
		strings.Replace(referencePHC, "t=2", "t=0", 1),
		strings.Replace(referencePHC, "t=2", "t=65", 1),
		strings.Replace(referencePHC, "t=2", "t=", 1),
		strings.Replace(referencePHC, "p=1", "p=256", 1),
		strings.Replace(referencePHC, "p=1", "p=1,keyid=x", 1),
		strings.Replace(referencePHC, "c29tZXNhbHQ", "c29tZXNhbHR", 1), // unused bits set
		strings.Replace(referencePHC, "c29tZXNhbHQ", "c29tZXNhbHQ==", 1),
		strings.Replace(referencePHC, "c29tZXNhbHQ", "c29t\nZXNhbHQ", 1),
		strings.Replace(referencePHC, "c29tZXNhbHQ", "c2Fs", 1),
		strings.Replace(referencePHC, "CTFh", "CT_h", 1),
	} {
		if _, err := parsePHC(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func FuzzPHC(f *testing.F) {
	f.Add(referencePHC)
	f.Add(unmatchable(DefaultArgon2id).String())
	f.Add("$argon2id$v=19$m=8,t=1,p=1$$")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := parsePHC(text)
		if err != nil {
			return
		}
		if h.String() != text {
			t.Fatalf("%q has a second spelling, %q", h, text)
		}
		if h.outOfRange() || len(h.salt) < 8 || len(h.key) < 16 {
			t.Fatalf("%q was read", text)
		}
	})
}

// SEC-82: at least 19 MiB with two passes, a salt of 16 random bytes.
func TestSEC82Parameters(t *testing.T) {
	for _, weak := range []Argon2id{{}, {1024, 2, 1}, {minMemory - 1, 64, 1}, {minMemory, 1, 1}, {minMemory*2 - 1, 1, 1}} {
		if !weak.tooWeak() {
			t.Errorf("%+v is taken", weak)
		}
	}
	for _, good := range []Argon2id{DefaultArgon2id, {minMemory, 2, 1}, {46 << 10, 1, 1}, {64 << 10, 3, 4}} {
		if good.tooWeak() || good.outOfRange() {
			t.Errorf("%+v is refused", good)
		}
	}
	p := Argon2id{64, 1, 1}
	a, b := hashPassword(p, []byte("x")), hashPassword(p, []byte("x"))
	if len(a.salt) != 16 || string(a.salt) == string(b.salt) || string(a.key) == string(b.key) {
		t.Error("two hashes of one password agree")
	}
}
