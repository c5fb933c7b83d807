//go:build race

package simulation

const seedsByDefault = 25
