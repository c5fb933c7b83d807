package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/internal/opaque"
)

// SEC-123: whatever is logged by mistake, a credential is not.
func TestSEC123LogHoldsNoCredential(t *testing.T) {
	session, _ := opaque.New(opaque.SessionToken, opaque.NewID())
	key, _ := opaque.New(opaque.APIKey, opaque.NewID())
	reset, _ := opaque.New(opaque.PasswordReset, opaque.NewID())
	const jwt = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIn0.eyJpc3MiOiJodHRwczovL2FwcC5leGFtcGxlIn0.c2lnbmF0dXJlLWJ5dGVz"
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log := newLogger(&out, format, slog.LevelDebug)
		for _, secret := range []string{session.Reveal(), key.Reveal(), reset.Reveal(), jwt} {
			log.Info("message with "+secret, "value", secret, "quoted", `Cookie: x="`+secret+`"; y`,
				"error", errors.New("bad token "+secret), "bytes", []byte(secret), "group", slog.GroupValue(slog.String("inner", secret)))
			slog.NewLogLogger(log.Handler(), slog.LevelWarn).Printf("http: panic serving: %s", secret)
		}
		log.Info("secrets", "secret", session)
		for _, secret := range []string{session.Reveal(), key.Reveal(), reset.Reveal(), jwt} {
			if bytes.Contains(out.Bytes(), []byte(secret)) {
				t.Errorf("%s: %.9s… is in the log:\n%s", format, secret, out.String())
			}
		}
		if !strings.Contains(out.String(), "cf_st_[redacted]") {
			t.Errorf("%s: the log does not tell that something was there:\n%s", format, out.String())
		}
	}
}

// SEC-124: a value cannot forge a line of the log nor speak to a terminal, and
// has a limit.
func TestSEC124LogValuesAreEncoded(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		for _, nasty := range []string{"a\r\nlevel=ERROR msg=forged", "\x1b[2J\x1b]0;title\x07", "tab\tnul\x00del\x7f", strings.Repeat("ä", 5000)} {
			var out bytes.Buffer
			log := newLogger(&out, format, slog.LevelInfo)
			log.LogAttrs(context.Background(), slog.LevelInfo, nasty, slog.String("value", nasty), slog.Any("error", errors.New(nasty)))
			line := strings.TrimSuffix(out.String(), "\n")
			if strings.ContainsAny(line, "\r\n\x1b\x07\x00") {
				t.Errorf("%s: raw control characters: %q", format, line)
			}
			if len(line) > 8*maxLogValue {
				t.Errorf("%s: a line of %d bytes", format, len(line))
			}
		}
	}
}
