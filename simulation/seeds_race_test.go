//go:build race

package simulation

const (
	seedsByDefault = 25
	seedsAgain     = 2 // times that a seed of a mended mistake is run
	plant          = false
)
