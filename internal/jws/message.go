package jws

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// Header is the protected header of a token.
type Header struct {
	Alg Alg
	Typ string // as it stands; which typ is right is the caller's check
	Kid string
}

// Message is a token that was read but not yet verified: before Verify has
// returned nil, Payload is what anybody may have written.
type Message struct {
	Header  Header
	Payload []byte // decoded, at least one byte; not checked to be JSON

	signed    string // header and payload as received, with the dot between
	signature []byte
}

// Parse reads everything of a token but its signature, which Verify checks.
// It does no work that grows beyond MaxToken, whatever the text. Errors wrap
// ErrMalformed.
func Parse(compact string) (Message, error) {
	m, err := ParseUntyped(compact)
	if err == nil && m.Header.Typ == "" {
		return Message{}, malformed("header: typ is missing or empty")
	}
	return m, err
}

// ParseUntyped is Parse for a header that may lack typ. It is there for test
// vectors, which have none; a token without typ is never an access token.
func ParseUntyped(compact string) (Message, error) {
	p, err := split(compact)
	if err != nil {
		return Message{}, err
	}
	m := Message{Payload: p.payload, signed: p.signed, signature: p.signature}
	if err := m.Header.parse(p.header); err != nil {
		return Message{}, err
	}
	return m, nil
}

// parts are the decoded parts of a token, and the text that was signed.
type parts struct {
	header, payload, signature []byte
	signed                     string
}

// split takes a token apart and decodes it.
func split(compact string) (parts, error) {
	if len(compact) > MaxToken {
		return parts{}, malformed("longer than %d bytes", MaxToken)
	}
	first := strings.IndexByte(compact, '.')
	if first < 0 {
		return parts{}, malformed("want three parts")
	}
	second := strings.IndexByte(compact[first+1:], '.')
	if second < 0 {
		return parts{}, malformed("want three parts")
	}
	second += first + 1
	header, payload, signature := compact[:first], compact[first+1:second], compact[second+1:]
	switch {
	case strings.IndexByte(signature, '.') >= 0:
		return parts{}, malformed("want three parts")
	case header == "" || payload == "" || signature == "":
		return parts{}, malformed("a part is empty")
	case len(header) > base64url.EncodedLen(MaxHeader):
		return parts{}, malformed("header longer than %d bytes", MaxHeader)
	case strings.IndexByte(compact, '\n') >= 0 || strings.IndexByte(compact, '\r') >= 0:
		// encoding/base64 skips line ends, in strict mode too.
		return parts{}, malformed("line end")
	}

	// One allocation holds the three decoded parts.
	out := make([]byte, 0, base64url.DecodedLen(len(compact)))
	var ends [3]int
	for i, part := range [...]string{header, payload, signature} {
		var err error
		if out, err = base64url.AppendDecode(out, []byte(part)); err != nil {
			return parts{}, malformed("%s: not base64url", [...]string{"header", "payload", "signature"}[i])
		}
		ends[i] = len(out)
	}
	return parts{
		header:    out[:ends[0]:ends[0]],
		payload:   out[ends[0]:ends[1]:ends[1]],
		signature: out[ends[1]:ends[2]:ends[2]],
		signed:    compact[:second],
	}, nil
}

// parse fills h from a decoded header. A missing typ leaves Typ empty.
func (h *Header) parse(data []byte) error {
	err := strictjson.Object(data, func(name string, value []byte) error {
		var err error
		switch name {
		case "alg":
			var alg string
			alg, err = strictjson.String(value)
			h.Alg = Alg(alg)
		case "typ":
			h.Typ, err = strictjson.String(value)
		case "kid":
			h.Kid, err = strictjson.String(value)
		case "crit", "b64", "jku", "x5u", "jwk", "x5c", "x5t", "x5t#S256", "cty", "zip", "enc":
			return malformed("header: %s is not allowed", name)
		default:
			return malformed("header: a member other than alg, typ and kid")
		}
		if err != nil {
			return malformed("header: %s: %w", name, err)
		}
		return nil
	})
	switch {
	case err == nil:
	case errors.Is(err, ErrMalformed):
		return err
	default:
		return malformed("header: %w", err)
	}
	if !h.Alg.Known() {
		return malformed("header: alg is missing or not one of ES256, EdDSA, RS256, PS256")
	}
	if !ValidKID(h.Kid) {
		return malformed("header: kid is missing or not 1 to %d of A-Z a-z 0-9 _ -", MaxKID)
	}
	return nil
}

// base64url is canonical base64url: no padding, unused bits zero.
var base64url = base64.RawURLEncoding.Strict()

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}
