package jws

import (
	"crypto/ed25519"
	"encoding/hex"
	"math/big"
)

// smallOrderY holds the y coordinates, little-endian, of the points of order 1,
// 2, 4 and 8 on the curve of Ed25519, with the spellings that are not reduced.
// A signature by such a key can be made to fit any message.
var smallOrderY = func() (ys [7][32]byte) {
	for i, y := range [...]string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		if _, err := hex.Decode(ys[i][:], []byte(y)); err != nil {
			panic(err) // a constant above is not hexadecimal
		}
	}
	return ys
}()

func smallOrder(pub ed25519.PublicKey) bool {
	y := [32]byte(pub)
	y[31] &= 0x7f // the sign of x
	for _, weak := range smallOrderY {
		if y == weak {
			return true
		}
	}
	return false
}

// roca tells whether n has the fingerprint of the Infineon key generator whose
// keys can be factored: modulo every small prime, n is a power of 65537. A good
// key looks so once in many millions.
func roca(n *big.Int) bool {
	var rest big.Int
	for p := int64(3); p < 168; p += 2 {
		if !big.NewInt(p).ProbablyPrime(0) {
			continue
		}
		want := rest.Mod(n, big.NewInt(p)).Int64()
		power, found := int64(1), false
		for range p {
			if found = power == want; found {
				break
			}
			power = power * 65537 % p
		}
		if !found {
			return false
		}
	}
	return true
}
