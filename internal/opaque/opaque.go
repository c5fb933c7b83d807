// Package opaque makes and reads the opaque secrets of Counterfoil: session
// tokens, API keys, password-reset tokens. They share one shape,
//
//	<prefix><selector: 24 base62><secret: 256 bits in base62, 43><CRC32: 6 base62>
//
// so that secret scanners find a leaked one, a typing error never reaches the
// store, and a lookup goes by the public selector while only a hash of the
// secret part is kept.
package opaque

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"log/slog"
	"math/bits"
)

// Kind is the prefix that names what a secret is for.
type Kind string

const (
	SessionToken  Kind = "cf_st_"
	APIKey        Kind = "cf_sk_"
	PasswordReset Kind = "cf_pr_"
	Ceremony      Kind = "cf_ce_"
)

const (
	// SelectorLen is the length of a selector: two characters of shard and
	// 128 random bits.
	SelectorLen = 24
	secretLen   = 43
	checksumLen = 6
	bodyLen     = SelectorLen + secretLen + checksumLen
)

// ErrMalformed says that a text is not a secret of the expected kind: wrong
// prefix, length, alphabet or checksum. No store needs to be asked about it.
var ErrMalformed = errors.New("not a well-formed secret of this kind")

// Hash is what a store keeps of a secret.
type Hash [sha256.Size]byte

// Secret is a whole secret in the clear. It redacts itself wherever it is
// printed, logged or encoded; Reveal is the one way to its text.
type Secret struct{ text string }

// Reveal returns the text of the secret, for the one answer that hands it out.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.text == "" }

const redacted = "[redacted]"

func (s Secret) String() string               { return redacted }
func (s Secret) GoString() string             { return redacted }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// New makes a secret of the given kind under the selector, and the hash to keep.
func New(kind Kind, selector string) (Secret, Hash) {
	var raw [32]byte
	rand.Read(raw[:]) // never fails: crypto/rand aborts the program instead
	b := make([]byte, 0, len(kind)+bodyLen)
	b = append(b, kind...)
	b = append(b, selector...)
	b = appendBase62(b, raw[:], secretLen)
	hash := sha256.Sum256(b[len(b)-secretLen:])
	b = appendChecksum(b)
	return Secret{string(b)}, hash
}

// Parsed is a secret as received: shape and checksum hold, nothing else is known.
type Parsed struct {
	Selector string
	secret   string
}

// Parse checks prefix, alphabet, length and checksum of text without asking
// any store.
func Parse(kind Kind, text string) (Parsed, error) {
	if len(text) != len(kind)+bodyLen || text[:len(kind)] != string(kind) {
		return Parsed{}, ErrMalformed
	}
	for i := len(kind); i < len(text); i++ {
		if !isBase62(text[i]) {
			return Parsed{}, ErrMalformed
		}
	}
	var sum [checksumLen]byte
	end := len(text) - checksumLen
	putChecksum(sum[:], text[:end])
	if string(sum[:]) != text[end:] {
		return Parsed{}, ErrMalformed
	}
	body := text[len(kind):end]
	return Parsed{Selector: body[:SelectorLen], secret: body[SelectorLen:]}, nil
}

// Matches compares the received secret with a kept hash in constant time.
func (p Parsed) Matches(kept Hash) bool {
	got := sha256.Sum256([]byte(p.secret))
	return subtle.ConstantTimeCompare(got[:], kept[:]) == 1
}

// NewSelector makes a selector whose two shard characters come from the first
// byte of SHA-256(name), so that all sessions of one subject share a shard.
func NewSelector(name string) string {
	sum := sha256.Sum256([]byte(name))
	return newSelector(sum[0])
}

// NewID makes a selector that belongs to no name: its shard is random.
func NewID() string {
	var b [1]byte
	rand.Read(b[:])
	return newSelector(b[0])
}

// Shard returns the two characters with which [NewSelector] begins for the name.
func Shard(name string) string {
	sum := sha256.Sum256([]byte(name))
	return ShardName(sum[0])
}

// ShardName returns the two characters of the shard with the number.
func ShardName(shard byte) string {
	return string([]byte{alphabet[shard/62], alphabet[shard%62]})
}

func newSelector(shard byte) string {
	var raw [16]byte
	rand.Read(raw[:])
	b := make([]byte, 0, SelectorLen)
	b = append(b, alphabet[shard/62], alphabet[shard%62])
	return string(appendBase62(b, raw[:], SelectorLen-2))
}

// RandomText returns 128 random bits as 22 base62 characters.
func RandomText() string {
	var raw [16]byte
	rand.Read(raw[:])
	var b [22]byte
	return string(appendBase62(b[:0], raw[:], 22))
}

// IsSelector reports whether text has the shape of a selector.
func IsSelector(text string) bool {
	if len(text) != SelectorLen {
		return false
	}
	for i := range len(text) {
		if !isBase62(text[i]) {
			return false
		}
	}
	return true
}

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func isBase62(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// appendBase62 writes raw (16 or 32 bytes, big endian) as exactly n digits.
func appendBase62(dst, raw []byte, n int) []byte {
	var words [4]uint64
	w := words[:len(raw)/8]
	for i := range w {
		w[i] = binary.BigEndian.Uint64(raw[8*i:])
	}
	start := len(dst)
	for range n {
		dst = append(dst, '0')
	}
	for i := n - 1; i >= 0; i-- {
		var rem uint64
		for j := range w {
			w[j], rem = bits.Div64(rem, w[j], 62)
		}
		dst[start+i] = alphabet[rem]
	}
	return dst
}

func appendChecksum(b []byte) []byte {
	var sum [checksumLen]byte
	putChecksum(sum[:], string(b))
	return append(b, sum[:]...)
}

func putChecksum(dst []byte, text string) {
	v := crc32.ChecksumIEEE([]byte(text))
	for i := checksumLen - 1; i >= 0; i-- {
		dst[i] = alphabet[v%62]
		v /= 62
	}
}
