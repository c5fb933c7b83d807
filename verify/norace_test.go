//go:build !race

package verify

const manyRevoked = 1_000_000
