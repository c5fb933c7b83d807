package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/counterfoil/counterfoil/redisstore"
)

// redisState is what one server of Redis says of itself.
type redisState struct {
	version, role, policy, fsync string
	aof                          bool
	aofFailed                    bool
	replicas, lagging            int
	used, limit                  int64
	linkDown                     bool // of a replica to its master
}

// checkSessions looks at where the sessions are, when that is Redis.
func checkSessions(ctx context.Context, p *patient) []finding {
	value := string(p.flags.sessions)
	if value == "" {
		return nil
	}
	option, err := redisstore.ParseURL(value)
	if err != nil {
		return []finding{fail("address", "--sessions cannot be read: "+err.Error(), "--sessions redis://USER:PASSWORD@HOST:PORT")}
	}
	// No tracking of keys, no wait for ever, nothing repeated: it looks once.
	option.DisableCache, option.DisableRetry = true, true
	option.Dialer.Timeout, option.ConnWriteTimeout = doctorTimeout, doctorTimeout
	ctx, cancel := context.WithTimeout(ctx, 2*doctorTimeout)
	defer cancel()
	client, err := rueidis.NewClient(option)
	if err != nil {
		return []finding{fail("reach", "no server of --sessions answers: "+oneLine(err.Error())+": nothing is minted, nobody is signed out", "redis-cli -h "+strings.Split(option.InitAddress[0], ":")[0]+" PING, from this machine")}
	}
	defer client.Close()
	var found []finding
	masters := 0
	for address, node := range client.Nodes() {
		s, err := readRedis(ctx, node)
		if err != nil {
			found = append(found, fail(address, "it does not answer: "+oneLine(err.Error()), "look at its log; a replica takes over by Sentinel or the cluster"))
			continue
		}
		if s.role == "master" {
			masters++
		}
		found = append(found, judgeRedis(address, s)...)
	}
	if masters == 0 {
		found = append(found, fail("masters", "there is none among the servers of --sessions: no session can be written", "name the master; or promote one: redis-cli REPLICAOF NO ONE"))
	}
	return found
}

func readRedis(ctx context.Context, node rueidis.Client) (*redisState, error) {
	text, err := node.Do(ctx, node.B().Info().Section("server", "memory", "persistence", "replication").Build()).ToString()
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for line := range strings.SplitSeq(text, "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			fields[name] = value
		}
	}
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(fields[name], 10, 64) // what is missing counts as nothing
		return n
	}
	s := &redisState{
		version: fields["redis_version"], role: fields["role"], policy: fields["maxmemory_policy"], aof: fields["aof_enabled"] == "1",
		aofFailed: fields["aof_last_write_status"] == "err", replicas: int(number("connected_slaves")), used: number("used_memory"), limit: number("maxmemory"),
		linkDown: fields["master_link_status"] == "down",
	}
	for i := range s.replicas {
		if !strings.Contains(fields[fmt.Sprintf("slave%d", i)], "state=online") {
			s.lagging++
		}
	}
	// CONFIG may be forbidden: then nobody knows.
	if set, err := node.Do(ctx, node.B().ConfigGet().Parameter("appendfsync").Build()).AsStrMap(); err == nil {
		s.fsync = set["appendfsync"]
	}
	return s, nil
}

// judgeRedis says what a crash of a server costs, and what keeps it from
// being the store of sessions.
func judgeRedis(address string, s *redisState) (found []finding) {
	major, _, _ := strings.Cut(s.version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < 7 {
		found = append(found, fail(address, fmt.Sprintf("Redis %s is too old, and serve refuses it", s.version), "upgrade to Redis 7 or Valkey"))
	}
	if s.policy != "noeviction" {
		found = append(found, fail(address, fmt.Sprintf("maxmemory-policy is %s: it throws sessions away when memory is short, and serve refuses it", s.policy), "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in its file"))
	}
	const appendOn = "redis-cli CONFIG SET appendonly yes, and the same in its file"
	switch {
	case s.aofFailed:
		found = append(found, fail(address, "its last write to the append-only file failed: it takes no more writes", "make room on its disk; look at its log"))
	case !s.aof:
		found = append(found, warn(address, "appendonly is off: a restart loses all sign-ins since the last snapshot, or all of them; revocations are in SQL", appendOn))
	case s.fsync == "no":
		found = append(found, warn(address, "appendfsync is no: a crash of the machine may lose half a minute of sign-ins; revocations are in SQL", "redis-cli CONFIG SET appendfsync everysec, or always"))
	}
	if s.limit > 0 && s.used > s.limit*8/10 {
		found = append(found, warn(address, fmt.Sprintf("%s of %s are used: when all is, nobody can sign in", megabytes(s.used), megabytes(s.limit)), "more memory, and redis-cli CONFIG SET maxmemory"))
	}
	switch {
	case s.role == "master" && s.replicas == 0:
		found = append(found, warn(address, "it has no replica: while it is down nothing is minted", "add one: replicaof in its file, and Sentinel or a cluster to promote it"))
	case s.lagging > 0:
		found = append(found, warn(address, fmt.Sprintf("%d of %d replicas do not follow yet", s.lagging, s.replicas), "redis-cli INFO replication, and the replica's log"))
	case s.role != "master" && s.linkDown:
		found = append(found, warn(address, "this replica has lost its master: promoted now, it would lack the last sign-ins", "redis-cli INFO replication, and its log"))
	}
	if len(found) == 0 {
		says := "a crash of its machine may lose the sign-ins of about a second"
		if s.fsync == "always" {
			says = "a crash loses nothing that was acknowledged"
		}
		found = append(found, ok(address, "%s, version %s, %s used: %s", s.role, s.version, megabytes(s.used), says))
	}
	return found
}
