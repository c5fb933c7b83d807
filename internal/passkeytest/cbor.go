package passkeytest

import (
	"crypto/ecdsa"
	"encoding/binary"
)

// The little CBOR (RFC 8949) that an authenticator writes.

func cborHead(major byte, n uint64) []byte {
	switch {
	case n < 24:
		return []byte{major<<5 | byte(n)}
	case n < 1<<8:
		return []byte{major<<5 | 24, byte(n)}
	}
	return binary.BigEndian.AppendUint16([]byte{major<<5 | 25}, uint16(n))
}

func cborInt(n int) []byte {
	if n < 0 {
		return cborHead(1, uint64(-1-n))
	}
	return cborHead(0, uint64(n))
}

func cborBytes(b []byte) []byte { return append(cborHead(2, uint64(len(b))), b...) }

func cborText(s string) []byte { return append(cborHead(3, uint64(len(s))), s...) }

func cborMap(items ...[]byte) []byte {
	out := cborHead(5, uint64(len(items)/2))
	for _, item := range items {
		out = append(out, item...)
	}
	return out
}

// coseKey is a P-256 key as RFC 9053 section 7.1 writes it.
func coseKey(key *ecdsa.PrivateKey, algorithm int) ([]byte, error) {
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	return EC2Key(algorithm, 1, point[1:33], point[33:]), nil
}

// EC2Key is a COSE key of type EC2.
func EC2Key(algorithm, curve int, x, y []byte) []byte {
	return cborMap(
		cborInt(1), cborInt(2), cborInt(3), cborInt(algorithm),
		cborInt(-1), cborInt(curve), cborInt(-2), cborBytes(x), cborInt(-3), cborBytes(y))
}

// RSAKey is a COSE key of type RSA (RFC 8230).
func RSAKey(algorithm int, modulus, exponent []byte) []byte {
	return cborMap(
		cborInt(1), cborInt(3), cborInt(3), cborInt(algorithm),
		cborInt(-1), cborBytes(modulus), cborInt(-2), cborBytes(exponent))
}
