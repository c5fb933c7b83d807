//go:build !race

package main

import "testing"

const (
	killRounds = 20
	killCalls  = 1000 // sign-ins and revocations a round, were it not for the kill
)

func notUnderRace(*testing.T) {}
