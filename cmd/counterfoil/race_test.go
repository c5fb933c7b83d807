//go:build race

package main

// The race detector makes the servers of the tests some ten times slower.
// The whole number of rounds runs without it.
const (
	killRounds = 3
	killCalls  = 300
)
