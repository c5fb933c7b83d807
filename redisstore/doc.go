// Package redisstore keeps sessions in Redis 7 or Valkey, one server or a
// cluster, and everything else in SQL: users, keys, the feed log, and the
// subjects' rows, of which Redis has copies.
//
//	option, err := redisstore.ParseURL("redis://user:password@cache:6379")
//	store := redisstore.New(sqlstore.PostgreSQL(db), option)
//	auth, err := counterfoil.New(ctx, store, config)
//
// What ends a session or changes a subject is committed in SQL first, entry of
// the feed and a line of a journal with it, and then told to Redis, before the
// call returns. A node that dies between the two leaves a line that any other
// node tells. Refreshes read Redis alone, in one script.
//
// Redis may go back in time: a crash takes what was not yet on the disk, a
// replica that takes over may lack the last writes. Each start of a server and
// each promotion has a new replication ID; a node that sees one mints nothing
// until the shards of that server were told again what the journal told since
// the mark that their data hold. Besides, no session is minted for that
// contradicts what the feed log said in the last minutes.
//
// # What a crash costs
//
// Revocations are never lost: they are in SQL. Sign-ins, uses and changes of
// sessions are as durable as Redis is set, and [Store.Open] warns of what that
// means: with appendfsync always a crash loses nothing that was acknowledged,
// with everysec about a second, without appendonly everything since the last
// snapshot on disk. A replica that takes over lacks what it had not received,
// unless [Wait] is set. A user whose session is lost signs in again.
package redisstore
