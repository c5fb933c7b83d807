// Package simulation runs whole installations of Counterfoil on simulated
// time: several authorities over one database, verifiers that follow their
// feed, and users, while links are cut, processes crash, clocks are wrong and
// the database goes back to a backup. A model of what is true checks the five
// promises of docs/promises.md after each step. It is tests only; see
// docs/simulation.md.
package simulation
