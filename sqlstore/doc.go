// Package sqlstore keeps sessions, the feed log, keys and users in SQLite or
// PostgreSQL over database/sql. The caller brings the driver and the database:
//
//	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN("app.db")) // modernc.org/sqlite
//	auth, err := counterfoil.New(ctx, sqlstore.SQLite(db), config)
//
//	db, err := sql.Open("pgx", "postgres://…") // github.com/jackc/pgx/v5/stdlib
//	auth, err := counterfoil.New(ctx, sqlstore.PostgreSQL(db), config)
//
// [Store.Open] creates and migrates the tables, which have a common prefix
// and may live beside an application's own. [Store.InTx] joins the
// application's transaction, so that a new password and the sign-out that it
// causes commit as one.
//
// # SQLite
//
// Needs a file in WAL mode and at least two connections: one is held for
// writing, and of three or more another one by each open tail of the feed. Concurrent writes are grouped into one commit, each in a savepoint
// of its own, and answered only after that commit has reached the disk
// (synchronous=FULL; Open refuses less, since a lost commit un-revokes).
// Other processes may use the same file.
//
// A transaction given to [Store.InTx] holds SQLite's one write lock from its
// first change to its end: all other writers wait for it. Do not call the
// store outside of the transaction while it is open in the same goroutine.
//
// # PostgreSQL
//
// Version 12 or later, the primary, isolation READ COMMITTED or stricter. The
// calls of the hot path are one statement each. Positions in the feed come
// from a plain sequence, so that commits do not queue behind each other: they
// may have gaps and become visible out of order. A tail of the feed asks for
// what is missing until nobody can be left who drew it: a transaction of
// whatever application on the same server, left open, only makes it ask longer.
package sqlstore
