package jws

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
)

// p256Half is the length of r and of s in an ES256 signature, and of the two
// coordinates of its keys.
const p256Half = 32

// p256Order is n, the order of the base point of P-256.
var p256Order = elliptic.P256().Params().N.FillBytes(make([]byte, p256Half))

// verifyES256 takes r and s as 32 bytes each (RFC 7518 section 3.4). crypto/ecdsa
// wants them in DER; building it here is cheaper than going through big.Int.
func verifyES256(pub *ecdsa.PublicKey, signed string, signature []byte) bool {
	if len(signature) != 2*p256Half {
		return false
	}
	r, s := signature[:p256Half], signature[p256Half:]
	if !inOrder(r) || !inOrder(s) {
		return false
	}
	var buf [2 + 2*(2+1+p256Half)]byte
	der := append(buf[:0], 0x30, 0)
	der = appendInteger(der, r)
	der = appendInteger(der, s)
	der[1] = byte(len(der) - 2)
	digest := sha256.Sum256([]byte(signed))
	return ecdsa.VerifyASN1(pub, digest[:], der)
}

// inOrder tells whether 1 <= x < n.
func inOrder(x []byte) bool {
	return bytes.Compare(x, p256Order) < 0 && len(bytes.TrimLeft(x, "\x00")) > 0
}

// appendInteger appends the DER form of the positive integer x.
func appendInteger(der, x []byte) []byte {
	for x[0] == 0 {
		x = x[1:]
	}
	if x[0] >= 0x80 {
		der = append(der, 2, byte(len(x)+1), 0)
	} else {
		der = append(der, 2, byte(len(x)))
	}
	return append(der, x...)
}

// appendFixed appends r and s of a DER signature as 32 bytes each.
func appendFixed(dst, der []byte) ([]byte, error) {
	if len(der) < 2 || der[0] != 0x30 || int(der[1]) != len(der)-2 {
		return nil, errDER
	}
	der = der[2:]
	for range 2 {
		if len(der) < 2 || der[0] != 2 || int(der[1]) > len(der)-2 {
			return nil, errDER
		}
		x := der[2 : 2+int(der[1])]
		der = der[2+len(x):]
		x = bytes.TrimLeft(x, "\x00")
		if len(x) == 0 || len(x) > p256Half {
			return nil, errDER
		}
		dst = append(dst, zeros[:p256Half-len(x)]...)
		dst = append(dst, x...)
	}
	if len(der) != 0 {
		return nil, errDER
	}
	return dst, nil
}

var (
	zeros  [p256Half]byte
	errDER = errors.New("jws: the key gave no ASN.1 ECDSA signature for P-256")
)
