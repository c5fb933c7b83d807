//go:build unix

package testenv

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// RedisCluster is a Redis cluster of the tests' own: three masters, each with
// one replica.
type RedisCluster struct {
	Nodes []*Redis // masters 0, 1, 2 and their replicas 3, 4, 5, as they began
	URL   string   // redis:// with all addresses, by comma
}

const (
	clusterMasters = 3
	clusterSlots   = 16384
)

// StartRedisCluster starts six servers and returns when the cluster is whole.
// A master counts as failed after about a second. Options as of StartRedis.
func StartRedisCluster(ctx context.Context, bin, parent string, options ...string) (*RedisCluster, error) {
	c := &RedisCluster{}
	fail := func(err error) (*RedisCluster, error) { return nil, errors.Join(err, c.Stop()) }
	options = append([]string{
		"cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-node-timeout 1000",
		"cluster-replica-validity-factor 0",
	}, options...)
	for range 2 * clusterMasters {
		r, err := StartRedis(ctx, bin, parent, options...)
		if err != nil {
			return fail(err)
		}
		c.Nodes = append(c.Nodes, r)
	}
	c.URL = c.Nodes[0].URL
	for _, r := range c.Nodes[1:] {
		c.URL += "," + r.Addr
	}
	for i, r := range c.Nodes[:clusterMasters] {
		first, last := i*clusterSlots/clusterMasters, (i+1)*clusterSlots/clusterMasters-1
		if _, err := r.Do(ctx, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last)); err != nil {
			return fail(err)
		}
	}
	for i, r := range c.Nodes {
		if _, err := r.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)); err != nil {
			return fail(err)
		}
		if i == 0 {
			continue
		}
		host, port, _ := strings.Cut(c.Nodes[0].Addr, ":")
		if _, err := r.Do(ctx, "CLUSTER", "MEET", host, port); err != nil {
			return fail(err)
		}
	}
	if err := c.each(ctx, func(r *Redis) (bool, error) {
		nodes, err := r.Do(ctx, "CLUSTER", "NODES")
		return strings.Count(nodes, " connected") == len(c.Nodes) && !strings.Contains(nodes, "handshake"), err
	}); err != nil {
		return fail(err)
	}
	for i, r := range c.Nodes[clusterMasters:] {
		id, err := c.Nodes[i].Do(ctx, "CLUSTER", "MYID")
		if err != nil {
			return fail(err)
		}
		if _, err := r.Do(ctx, "CLUSTER", "REPLICATE", id); err != nil {
			return fail(err)
		}
	}
	if err := c.WaitWhole(ctx); err != nil {
		return fail(err)
	}
	return c, nil
}

// WaitWhole returns when every server that runs sees all slots served, and
// every master has a replica that follows it.
func (c *RedisCluster) WaitWhole(ctx context.Context) error {
	return c.each(ctx, func(r *Redis) (bool, error) {
		state, err := r.Do(ctx, "CLUSTER", "INFO")
		if err != nil || RedisField(state, "cluster_state") != "ok" || RedisField(state, "cluster_known_nodes") != strconv.Itoa(len(c.Nodes)) {
			return false, err
		}
		info, err := r.Do(ctx, "INFO", "replication")
		if err != nil {
			return false, err
		}
		if RedisField(info, "role") == "slave" {
			return RedisField(info, "master_link_status") == "up", nil
		}
		return strings.Contains(RedisField(info, "slave0"), "state=online"), nil
	})
}

// Master returns the server that serves the key now, as the others see it.
func (c *RedisCluster) Master(ctx context.Context, key string) (*Redis, error) {
	var last error
	for _, r := range c.Nodes {
		slot, err := r.Do(ctx, "CLUSTER", "KEYSLOT", key)
		if err != nil {
			last = err
			continue
		}
		nodes, err := r.Do(ctx, "CLUSTER", "NODES")
		if err != nil {
			last = err
			continue
		}
		if addr := slotOwner(nodes, slot); addr != "" {
			for _, owner := range c.Nodes {
				if owner.Addr == addr {
					return owner, nil
				}
			}
		}
	}
	return nil, fmt.Errorf("no server of the cluster says who serves %q: %w", key, last)
}

// slotOwner finds the address of the master of a slot in CLUSTER NODES.
func slotOwner(nodes, slot string) string {
	want, err := strconv.Atoi(slot)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(nodes) {
		words := strings.Fields(line)
		if len(words) < 9 || !strings.Contains(words[2], "master") || strings.Contains(words[2], "fail") {
			continue
		}
		for _, slots := range words[8:] {
			low, high, many := strings.Cut(slots, "-")
			if !many {
				high = low
			}
			from, err1 := strconv.Atoi(low)
			to, err2 := strconv.Atoi(high)
			if err1 == nil && err2 == nil && from <= want && want <= to {
				addr, _, _ := strings.Cut(words[1], "@")
				return addr
			}
		}
	}
	return ""
}

// each returns when the condition holds on every server that runs.
func (c *RedisCluster) each(ctx context.Context, ok func(*Redis) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, r := range c.Nodes {
		for {
			if r.ended() {
				break
			}
			good, err := ok(r)
			if good && err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("the cluster is not whole, as seen from %s: %w", r.Addr, errors.Join(ctx.Err(), err))
			case <-tick.C:
			}
		}
	}
	return nil
}

func (r *Redis) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// Stop ends all servers and removes their files.
func (c *RedisCluster) Stop() error {
	var errs []error
	for _, r := range c.Nodes {
		errs = append(errs, r.Stop())
	}
	return errors.Join(errs...)
}
