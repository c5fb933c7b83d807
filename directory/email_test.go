package directory

import (
	"errors"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
)

func TestNormalEmail(t *testing.T) {
	for _, c := range []struct{ given, email, key string }{
		{"ada@example.com", "ada@example.com", "ada@example.com"},
		{" \tAda.Lovelace+math@Example.COM\n", "Ada.Lovelace+math@Example.COM", "ada.lovelace+math@example.com"},
		{"root@localhost", "root@localhost", "root@localhost"},
		{"u\u0308ber@mu\u0308nchen.de", "über@münchen.de", "über@münchen.de"},
		{"Ǆ@example.com", "Ǆ@example.com", "ǆ@example.com"},
		{"o'neil_=!#$%&*/?^`{|}~-@x.io", "o'neil_=!#$%&*/?^`{|}~-@x.io", "o'neil_=!#$%&*/?^`{|}~-@x.io"},
	} {
		email, key, err := NormalEmail(c.given)
		if err != nil || email != c.email || key != c.key {
			t.Errorf("%q: got %q, %q, %v", c.given, email, key, err)
		}
	}
	for _, bad := range []string{
		"", " ", "ada", "@", "ada@", "@example.com", "a@b@c", "a b@c.de", "a@c d.de", "a@c..de", "a@.de", "a@de.",
		"a@-c.de", "a@c-.de", "a@c_d.de", ".a@c.de", "a.@c.de", "a..b@c.de", `"a"@c.de`, "a@[127.0.0.1]", "<a@c.de>",
		"a\x00@c.de", "a\r\nBcc:b@c.de", "a@c.de\u202e", "a\u200b@c.de", "\xff@c.de", "İnfo@c.de", "mi\u212ae@c.de", "a\u037eb@c.de", "a@c.de,b@c.de",
		strings.Repeat("a", 65) + "@c.de", "a@" + strings.Repeat("a", 64) + ".de",
		"a@" + strings.Repeat("abcdefgh.", 30) + "de", strings.Repeat("x", 1<<20),
	} {
		_, _, err := NormalEmail(bad)
		var field *counterfoil.FieldError
		if !errors.As(err, &field) || field.Field != "email" || field.Message == "" {
			t.Errorf("%.80q: got %v", bad, err)
		}
	}
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(strings.TrimSpace(s), func(r rune) bool { return r > 127 })
}

func FuzzNormalEmail(f *testing.F) {
	for _, seed := range []string{"ada@example.com", " Ü@MÜNCHEN.de ", "İ@x", "a@b@c", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, given string) {
		email, key, err := NormalEmail(given)
		if err != nil {
			if email != "" || key != "" {
				t.Fatal("an address came with an error")
			}
			return
		}
		if strings.Count(given, "@") != 1 || isASCII(key) && !isASCII(given) {
			t.Fatalf("%q got the key %q", given, key)
		}
		if len(email) > maxEmail || len(key) > maxEmail || strings.TrimSpace(email) != email {
			t.Fatalf("%q is not normal", email)
		}
		again, sameKey, err := NormalEmail(email)
		if err != nil || again != email || sameKey != key {
			t.Fatalf("kept form of %q is unstable: %q, %q, %v", given, again, sameKey, err)
		}
		if _, keyOfKey, err := NormalEmail(key); err != nil || keyOfKey != key {
			t.Fatalf("key %q is unstable: %q, %v", key, keyOfKey, err)
		}
	})
}
