// Package oracle holds tests alone: it checks the strict token reader against
// Project Wycheproof's vectors and against three general JOSE libraries. It is
// a module of its own, so that none of them is a dependency of Counterfoil.
//
//	cd internal/oracle && go test ./...
package oracle
