package main

import (
	"io"
	"log/slog"
	"regexp"
	"strings"
	"unicode/utf8"
)

// newLogger writes structured logs. Both formats quote or escape control
// characters; long values are cut (SEC-124), and anything that has the shape
// of a credential is blanked out wherever it came from (SEC-123).
func newLogger(w io.Writer, format string, level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: shortenAttr}
	w = redactor{w}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// maxLogValue is in bytes.
const maxLogValue = 1 << 10

func shortenAttr(groups []string, attr slog.Attr) slog.Attr {
	if len(groups) == 0 && attr.Key == slog.TimeKey {
		return attr
	}
	var value string
	switch v := attr.Value.Any().(type) {
	case string:
		value = v
	case error:
		value = v.Error()
	default:
		return attr
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r == '\n' || r == '\t' }) {
		value = strings.Join(strings.Fields(value), " ")
	}
	if len(value) > maxLogValue {
		cut := maxLogValue
		for cut > 0 && !utf8.RuneStart(value[cut]) {
			cut--
		}
		value = value[:cut] + "…"
	}
	attr.Value = slog.StringValue(value)
	return attr
}

// redactor blanks out session tokens, API keys, reset tokens and JWTs.
type redactor struct{ w io.Writer }

var (
	opaqueSecret = regexp.MustCompile(`\b(cf_(?:st|sk|pr|at)_)[0-9A-Za-z]{16,}`)
	compactJWT   = regexp.MustCompile(`\beyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]*`)
)

func (r redactor) Write(p []byte) (int, error) {
	clean := opaqueSecret.ReplaceAll(p, []byte("${1}[redacted]"))
	clean = compactJWT.ReplaceAll(clean, []byte("[redacted token]"))
	if _, err := r.w.Write(clean); err != nil {
		return 0, err
	}
	return len(p), nil
}
