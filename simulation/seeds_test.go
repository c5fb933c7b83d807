//go:build !race

package simulation

const (
	seedsByDefault = 160
	seedsAgain     = 8
	plant          = true
)
