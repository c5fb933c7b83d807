//go:build race

package verify

// Under the race detector a million takes most of a minute.
const manyRevoked = 50_000
