package redisstore

import (
	"context"
	"fmt"
	"strconv"
)

// oldest is the first version of Redis whose scripts replicate what they did.
// Valkey tells 7.2 and later there.
const oldest = 7

// checkServers refuses what cannot keep sessions, and says in plain words what
// a crash costs as the servers are set.
func (s *Store) checkServers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	masters, lost := 0, map[string]bool{}
	var failure error
	for address, node := range s.client.Nodes() {
		text, err := node.Do(ctx, node.B().Info().Section("server", "memory", "persistence", "replication").Build()).ToString()
		if err != nil {
			failure = fmt.Errorf("%s: %w", address, err)
			continue
		}
		fields := infoFields(text)
		if fields["role"] != "master" {
			continue
		}
		masters++
		var major int
		if _, err := fmt.Sscanf(fields["redis_version"], "%d.", &major); err != nil || major < oldest {
			return fmt.Errorf("redis %s at %s is too old: want %d or later, or Valkey", fields["redis_version"], address, oldest)
		}
		if policy := fields["maxmemory_policy"]; policy != "noeviction" && !s.relaxed {
			return fmt.Errorf("redis at %s may throw sessions away: maxmemory-policy is %s, want noeviction", address, policy)
		}
		fsync := ""
		// CONFIG may be forbidden: then the worse is assumed.
		if set, err := node.Do(ctx, node.B().ConfigGet().Parameter("appendfsync").Build()).AsStrMap(); err == nil {
			fsync = set["appendfsync"]
		}
		for _, cost := range costs(fields["aof_enabled"] == "1", fsync, atoi(fields["connected_slaves"]), s.replicas) {
			lost[cost] = true
		}
	}
	switch {
	case masters == 0 && failure != nil:
		return unavailable(failure)
	case masters == 0:
		return unavailable(errNoMaster)
	case failure != nil:
		s.log.Warn("a server of Redis does not answer", "error", failure)
	}
	if s.relaxed {
		return nil
	}
	for cost := range lost {
		s.log.Warn("sessions in Redis: " + cost)
	}
	return nil
}

// atoi is 0 for what is no number.
func atoi(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

// costs says what a crash may cost. Revocations are never among it.
func costs(aof bool, fsync string, replicas, waits int) (list []string) {
	const revocations = "; revocations are told again from SQL"
	switch {
	case !aof:
		list = append(list, "appendonly is off: a restart loses all sign-ins since the last snapshot on disk, or all of them"+revocations)
	case fsync == "no":
		list = append(list, "appendfsync is no: a crash of the machine may lose half a minute of sign-ins"+revocations)
	case fsync == "" || fsync == "everysec":
		list = append(list, "appendfsync is everysec: a crash of the machine may lose the sign-ins of about the last second"+revocations)
	}
	switch {
	case replicas < waits:
		list = append(list, fmt.Sprintf("replicas that each change waits for: %d, replicas there are: %d; sign-ins fail until more have come", waits, replicas))
	case replicas > 0 && waits == 0:
		list = append(list, "nothing waits for replicas: a replica that takes over may lack the last sign-ins"+revocations)
	}
	return list
}
