package main

// The unit costs that everything here is reckoned from. "measured" is in
// docs/benchmarks.md, on a machine of two shared processors that is about half
// as fast as a present server; "prototype" was measured before there was a
// product, with rows of the same shape; "real bytes" is counted by a test.
const (
	refreshCPU = 233e-6 // s, a node's processor, a refresh on PostgreSQL at 16 connections: measured
	storeCPU   = 125e-6 // s, PostgreSQL's processor for it, one statement a refresh: measured before they were shared
	sharedCPU  = 33e-6  // s, the same where reads that come at once share a statement (64 connections): measured
	sqliteCPU  = 235e-6 // s, node and SQLite together, a refresh: measured
	revokeCPU  = 167e-6 // s, PostgreSQL's processor, a revocation, some share a statement (16 connections): measured
	signInCPU  = 188e-6 // s, the same, a sign-in without the password hash: measured

	sqliteWrites   = 3946.0  // a second, revocations with a disk that syncs in 1 ms, 64 connections: measured
	postgresWrites = 6400.0  // a second, one primary, 1 ms sync, 16 writers, row and log: prototype
	redisReads     = 40000.0 // a second, one shard: 60 % of the 67,500 of the prototype

	sqliteBytes   = 252.0 // a session: prototype
	postgresBytes = 396.0 // a session: prototype
	redisBytes    = 725.0 // a session: prototype

	entryBytes  = 44.0  // of the feed, the end of a session, with its comma: real bytes
	frameBytes  = 57.0  // around the entries of one event, chunk included: real bytes
	beatBytes   = 117.0 // a beat, chunk included, ten a second: real bytes
	applyCPU    = 10e-6 // s, a verifier's processor, an entry (100,000 a second filled one): measured
	streamCPU   = 12e-6 // s, a server's processor, a beat to one stream (0.12 processors at 1,000 streams): measured
	writeCPU    = 8e-6  // s, the same, one write of entries (7.8 µs an event and stream at 100/s): measured
	streamBytes = 31e3  // memory of a server, a stream without TLS: measured; 59 kB with
	rowBytes    = 292.0 // memory of a verifier, a revocation in force: measured
	margin      = 15.0  // s, that an entry stays beyond the token's lifetime: the protocol

	frameMemory = 8 << 20  // what a node keeps of frames for readers that come back: the code
	relayMemory = 32 << 20 // the same, a relay: the code
	cacheFile   = 64 << 20 // the most that a verifier's cache file holds: the code

	full        = 0.6    // how much of a processor is planned with
	fibre       = 204e3  // km/s, light in glass
	detour      = 1.5    // how much longer than the shortest line a way in glass is: assumed
	hopPerLevel = 0.0005 // s, inside a region, a connection's way: assumed
	flushLeast  = 0.005  // s, a server's time between writes under load, at least: the code
	flushEach   = 10e-6  // s, what each stream adds to it, a processor: the code
)
