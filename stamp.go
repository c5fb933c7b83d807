package counterfoil

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// stampLen is the length of a stamp: 8 bytes of time and 16 of MAC, in hexadecimal.
const stampLen = 2 * (8 + 16)

// stampSubject is what a stamp speaks of. Two kinds of stamps never share one.
type stampSubject []byte

func stampOf(purpose string, fields ...[]byte) stampSubject {
	b := append([]byte(purpose), 0)
	for _, f := range fields {
		b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	return b
}

// boundSubject is what a bound cookie speaks of: the session and its present key.
func boundSubject(s *Session) stampSubject {
	return stampOf("bound cookie", []byte(s.ID), s.Binding.Key[:], number(s.Binding.RegisteredAt.UnixMilli()))
}

// challengeSubject is what a challenge speaks of: the next proof, which there is one of.
func challengeSubject(s *Session) stampSubject {
	return stampOf("challenge", []byte(s.ID), s.Binding.Key[:], number(s.Binding.RegisteredAt.UnixMilli()), number(s.Binding.Proofs))
}

// offerSubject is what the offer to register a key speaks of: the session, as
// the secret names it that went out with the offer.
func offerSubject(purpose string, s *Session) stampSubject {
	return stampOf(purpose, []byte(s.ID), s.SecretHash[:])
}

func number(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// stamp makes a text that says something until a time. Any node with the same
// seal can check it; nothing of it is stored.
func (a *Authority) stamp(about stampSubject, until time.Time) string {
	raw := number(until.Unix())
	return hex.EncodeToString(append(raw, a.seal[0].stampMAC(about, raw)...))
}

// stamped reports whether text is a stamp about this, still good at the given time.
func (a *Authority) stamped(about stampSubject, text string, at time.Time) bool {
	if len(text) != stampLen {
		return false
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		return false
	}
	until, mac := raw[:8], raw[8:]
	good := 0
	for i := range a.seal {
		good |= subtle.ConstantTimeCompare(mac, a.seal[i].stampMAC(about, until))
	}
	return good == 1 && at.Unix() < int64(binary.BigEndian.Uint64(until))
}

func (k *sealKey) stampMAC(about stampSubject, until []byte) []byte {
	h := hmac.New(sha256.New, k.mac[:])
	h.Write(until)
	h.Write(about)
	return h.Sum(nil)[:16]
}
