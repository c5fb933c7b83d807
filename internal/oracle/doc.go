// Package oracle holds tests alone: it checks the strict token reader and
// verify against Project Wycheproof's vectors and three general JOSE
// libraries, and that tokens go both ways between us and those libraries and
// Node's jose and jsonwebtoken. It is a module of its own, so that none of
// them is a dependency of Counterfoil.
//
//	cd internal/oracle && go test ./...
package oracle
