package directory

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/counterfoil/counterfoil"
)

const (
	maxEmail = 254 // RFC 5321 section 4.5.3.1.3, without the angle brackets
	maxLocal = 64  // RFC 5321 section 4.5.3.1.1
	maxLabel = 63  // RFC 1035 section 2.3.4
)

// NormalEmail returns an e-mail address as it is kept (trimmed, NFC) and the
// key by which it is unique: the same in lower case, local part and domain.
// RFC 5321 lets a server tell upper from lower case in the local part; people
// and real servers do not. Dots and +tags stay, look-alike letters and the
// two spellings of an international domain are not unified. Send mail to the
// kept address, never to what somebody typed to be found by.
//
// The check is for shape only: at most 254 bytes, one @ outside quotes (quoted
// local parts are refused), no spaces or control characters. Whether mail
// arrives there only a mail can tell. The error is a
// [*counterfoil.FieldError] of the field "email".
func NormalEmail(address string) (email, key string, err error) {
	bad := func(message string) (string, string, error) {
		return "", "", &counterfoil.FieldError{Field: "email", Message: message}
	}
	if len(address) > 4*maxEmail {
		return bad("must be at most 254 bytes")
	}
	if !utf8.ValidString(address) {
		return bad("must be valid UTF-8")
	}
	address = strings.TrimSpace(address)
	if strings.ContainsFunc(address, becomesASCII) {
		return bad("must not contain a character that stands for an ASCII one")
	}
	email = norm.NFC.String(address)
	// Lower-casing can leave a letter and its mark apart, so the key is composed again.
	key = norm.NFC.String(strings.ToLower(email))
	if email == "" {
		return bad("is required")
	}
	if len(email) > maxEmail || len(key) > maxEmail {
		return bad("must be at most 254 bytes")
	}
	local, domain, ok := strings.Cut(key, "@")
	switch {
	case !ok || local == "" || domain == "" || strings.Contains(domain, "@"):
		return bad("must have the form name@domain")
	case len(local) > maxLocal:
		return bad("must have at most 64 bytes before the @")
	case strings.ContainsFunc(key, notInAddress):
		return bad("must not contain spaces, control characters or any of \"(),:;<>[]\\")
	case local[0] == '.' || local[len(local)-1] == '.' || strings.Contains(local, ".."):
		return bad("must not have a dot at either end of the name, nor two in a row")
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, notInLabel) {
			return bad("must have a domain of letters, digits, hyphens and single dots after the @")
		}
	}
	return email, key, nil
}

// becomesASCII finds characters like the Kelvin sign or the dotted capital I:
// normalised they are k and i, so that somebody else's address would have the
// key of the user's.
func becomesASCII(r rune) bool {
	if r < utf8.RuneSelf {
		return false
	}
	normal := norm.NFC.String(strings.ToLower(norm.NFC.String(string(r))))
	return strings.ContainsFunc(normal, func(r rune) bool { return r < utf8.RuneSelf })
}

func notInAddress(r rune) bool {
	return unicode.IsSpace(r) || !unicode.IsGraphic(r) || strings.ContainsRune(`"(),:;<>[]\`, r)
}

func notInLabel(r rune) bool {
	if r < utf8.RuneSelf {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-')
	}
	return !unicode.In(r, unicode.Letter, unicode.Mark, unicode.Nd)
}
