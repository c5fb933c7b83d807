//go:build race

package main

import "testing"

// The race detector makes the servers of the tests some ten times slower.
// The whole number of rounds runs without it.
const (
	killRounds = 3
	killCalls  = 300
)

// notUnderRace leaves a long story of several servers to the run without the
// race detector; each of them runs with it in shorter tests.
func notUnderRace(t *testing.T) {
	t.Helper()
	t.Skip("make test runs it without the race detector")
}
