package jws

import (
	"errors"

	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// Proof is the JWT by which somebody proves to have a key, such as that of
// Device Bound Session Credentials: it has no key id, since the reader knows
// which key it wants, and may carry a key in its header. It was read but not
// verified: anybody may have written what is here.
type Proof struct {
	Alg     Alg
	Typ     string
	JWK     []byte // as it stands in the header; nil: there is none
	Payload []byte

	signed    string
	signature []byte
}

// ParseProof reads everything of a proof but its signature, as strictly as
// Parse does. Members of the header that are not known are passed over, since
// browsers may come to add some, but for those that would change what the
// signature means. Errors wrap ErrMalformed.
func ParseProof(compact string) (Proof, error) {
	parts, err := split(compact)
	if err != nil {
		return Proof{}, err
	}
	p := Proof{Payload: parts.payload, signed: parts.signed, signature: parts.signature}
	err = strictjson.Object(parts.header, func(name string, value []byte) (err error) {
		switch name {
		case "alg":
			var alg string
			alg, err = strictjson.String(value)
			p.Alg = Alg(alg)
		case "typ":
			p.Typ, err = strictjson.String(value)
		case "jwk":
			if p.JWK = value; value[0] != '{' {
				err = errors.New("not an object")
			}
		case "crit", "b64", "jku", "x5u", "x5c", "zip", "enc":
			return malformed("header: %s is not allowed", name)
		default:
			switch folded := strictjson.FoldsTo(name); folded {
			case "alg", "typ", "jwk", "crit", "b64":
				return malformed("header: a member differs from %s only by case", folded)
			}
		}
		if err != nil {
			return malformed("header: %s: %w", name, err)
		}
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, ErrMalformed):
		return Proof{}, malformed("header: %w", err)
	case err != nil:
		return Proof{}, err
	case !p.Alg.Known():
		return Proof{}, malformed("header: alg is missing or not one of ES256, EdDSA, RS256, PS256")
	}
	return p, nil
}

// Verify checks the signature by the key, which decides on the algorithm.
// Errors wrap ErrSignature.
func (p *Proof) Verify(k *PublicKey) error {
	if k == nil || k.alg != p.Alg || !k.Signed(p.signed, p.signature) {
		return ErrSignature
	}
	return nil
}
