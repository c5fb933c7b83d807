package directory

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

const (
	goodPassword  = "a lamp, nine otters and rain"
	otherPassword = "two spoons beneath the glacier"
)

func rules(t *testing.T, c Config) *passwordRules {
	t.Helper()
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		t.Fatal(err)
	}
	r, err := newPasswordRules(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func accept(r *passwordRules, password string) error {
	_, err := r.accept(context.Background(), "password", password, "ada.lovelace@example.com")
	return err
}

func refused(t *testing.T, err error, what string) {
	t.Helper()
	var field *counterfoil.FieldError
	if !errors.As(err, &field) || field.Field != "password" || field.Message == "" {
		t.Errorf("%s: got %v, want a refusal of the field", what, err)
	}
}

// SEC-83, SEC-84, SEC-85: length in characters, at most 1024 bytes, no rules
// of composition, nothing that guessers try first.
func TestSEC84Passwords(t *testing.T) {
	d := rules(t, Config{
		ContextWords:    []string{"Zebrafish"},
		BannedPasswords: strings.NewReader("# a comment\nMy very own banned one\n\n"),
	})
	for _, good := range []string{
		goodPassword, otherPassword, "fgzkwpxvbnqhrtm", "correct horse drums badly on tin", "kx7wq93hd51bz8p",
		"ÜÄÖ üäö ßßé ñandú!", "日本語の長い長い合言葉をひとつ書く", strings.Repeat("kfw eop qzx ", 85),
		"         a space is a character ",
	} {
		if err := accept(d, good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "fgzkwpxvbnqhrt", "short", "\xff\xfe" + goodPassword,
		"ａｂ", strings.Repeat("üöä", 4), strings.Repeat("kfw eop qzx ", 86),
		"aaaaaaaaaaaaaaaaaaaa", "abababababababababab", "123456789012345", "987654321098765432", "abcdefghijklmnopq",
		"qwertyuiopasdfghjkl", "qwertzuiopasdfg", "1qaz2wsx3edc4rfv5tgb", "1q2w3e4r5t6y7u8i9o0p", "q1w2e3r4t5y6u7i8o9p0",
		"passwordpassword", "Password12345678", "P@ssw0rdP@ssw0rd1", "p455w0rd!!!!!!!!!!", "iloveyouforever", "Welcome2024Welcome2024",
		"CorrectHorseBatteryStaple", "correct horse battery staple", "MayTheForceBeWithYou", "letmeinletmeinletmein1",
		"ada.lovelace@example.com", "Ada.Lovelace1234", "lovelacelovelace", "example.com.example.com", "ADALOVELACE@EXAMPLE.COM",
		"zebrafishZEBRAFISH12", "my VERY own banned one",
	} {
		refused(t, accept(d, bad), bad)
	}
	// Nothing is cut off and composed letters are one spelling (NFC).
	a, err := normalPassword("password", "cafe\u0301 "+goodPassword)
	if err != nil || string(a) != "café "+goodPassword {
		t.Errorf("got %q, %v", a, err)
	}
}

func TestSEC84MinimumLength(t *testing.T) {
	d := rules(t, Config{MinPasswordLength: 8, UnsafeShortPasswords: true})
	if err := accept(d, "kx7wq93h"); err != nil {
		t.Error(err)
	}
	refused(t, accept(d, "kx7wq93"), "seven characters")
	refused(t, accept(d, "password"), "password")
}

func TestSEC85Breached(t *testing.T) {
	outage := errors.New("no route")
	var answer error
	breached := func(ctx context.Context, password string) (bool, error) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("the service may take forever")
		}
		return password == otherPassword, answer
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	open := rules(t, Config{Breached: breached, Logger: logger})
	closed := rules(t, Config{Breached: breached, BreachedRequired: true, Logger: logger})
	for _, r := range []*passwordRules{open, closed} {
		if err := accept(r, goodPassword); err != nil {
			t.Error(err)
		}
		refused(t, accept(r, otherPassword), "a stolen password")
	}
	answer = outage
	if err := accept(open, goodPassword); err != nil {
		t.Errorf("an outage refused a password: %v", err)
	}
	if !strings.Contains(log.String(), "no route") || strings.Contains(log.String(), goodPassword) {
		t.Errorf("logged %q", log.String())
	}
	if err := accept(closed, goodPassword); !errors.Is(err, verify.ErrUnavailable) || !errors.Is(err, outage) {
		t.Errorf("got %v", err)
	}
}

func FuzzPassword(f *testing.F) {
	words := map[string]bool{"password": true, "qaz": true}
	f.Add("password1234", "ada@example.com")
	f.Add("\xff", "")
	f.Fuzz(func(t *testing.T, password, email string) {
		normal, err := normalPassword("password", password)
		if err != nil {
			return
		}
		runes := []rune(strings.ToLower(string(normal)))
		if n := guessableUnits(string(runes), words, contextWords(email)); n < 1 || n > len(runes) {
			t.Fatalf("%d units in %d characters", n, len(runes))
		}
		if p := period(runes); p < 1 || p > len(runes) {
			t.Fatalf("period %d of %d", p, len(runes))
		}
	})
}
