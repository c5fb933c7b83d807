//go:build linux

package faults

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

// startRedis starts a server that the test may kill.
func startRedis(t *testing.T, options ...string) *testenv.Redis {
	t.Helper()
	r, err := testenv.StartRedis(t.Context(), need(t, testenv.RedisBin), t.TempDir(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// withSessions has the nodes keep their sessions there.
func (s *system) withSessions(addresses ...string) {
	for i, node := range s.nodes {
		node.argv = append(node.argv, "--sessions", addresses[i%len(addresses)])
	}
}

// kill -9 of the one Redis, and a restart: with appendfsync always nothing is
// lost.
func TestKillRedis(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	database := newDatabase(t)
	s := newSystem(t, database, database, database)
	s.withSessions(redis.URL)
	s.start()
	for range 3 {
		s.goOn(300)
		if err := redis.Kill(); err != nil {
			t.Fatal(err)
		}
		s.notReady(s.nodes...)
		if err := redis.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("ready %s after Redis", round(s.ready(s.nodes...)))
		s.recover()
	}
	s.finish()
}

// A Redis that comes back with an old copy of its data: sign-ins after the
// copy are lost, no revocation is.
func TestOldRedis(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	database := newDatabase(t)
	s := newSystem(t, database, database, database)
	s.withSessions(redis.URL)
	s.start()
	s.goOn(400)
	s.oracle.lose(time.Now().Add(-time.Second))
	s.oracle.mended() // of sign-ins only
	backup := filepath.Join(t.TempDir(), "copy")
	copyFolder(t, filepath.Join(redis.Dir, "appendonlydir"), backup)
	s.goOn(400)
	if err := redis.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(redis.Dir, "appendonlydir")); err != nil {
		t.Fatal(err)
	}
	copyFolder(t, backup, filepath.Join(redis.Dir, "appendonlydir"))
	if err := redis.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("ready %s after Redis", round(s.ready(s.nodes...)))
	s.recover()
	s.finish()
	t.Logf("%d sign-ins were lost", s.oracle.lost)
}

func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// kill -9 of a master of a cluster: its replica takes over by itself. What it
// had not received, sign-ins of the last moment, is lost; revocations are not.
func TestFailoverRedisCluster(t *testing.T) {
	t.Parallel()
	cluster, err := testenv.StartRedisCluster(t.Context(), need(t, testenv.RedisBin), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	database := newDatabase(t)
	s := newSystem(t, database, database, database)
	s.withSessions(cluster.URL)
	s.start()
	s.goOn(400)
	s.oracle.lose(time.Now().Add(-time.Second))
	s.oracle.mended()
	old := cluster.Nodes[s.random.IntN(3)]
	if err := old.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	survivor := cluster.Nodes[3]
	s.wait("the cluster has another master", patience, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		state, err := survivor.Do(ctx, "CLUSTER", "INFO")
		return err == nil && testenv.RedisField(state, "cluster_state") == "ok" && time.Since(killed) > 1500*time.Millisecond
	})
	t.Logf("the cluster took %s", round(time.Since(killed)))
	t.Logf("ready %s later", round(s.ready(s.nodes...)))
	s.recover()
	if err := old.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := cluster.WaitWhole(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.goOn(300)
	s.finish()
	t.Logf("%d sign-ins were lost", s.oracle.lost)
}

// A network that loses what one node and Redis say to one another.
func TestPartitionRedis(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	line, way := between(t, redis.URL)
	database := newDatabase(t)
	s := newSystem(t, database, database, database)
	s.withSessions(way, redis.URL)
	s.start()
	for _, cut := range []struct{ there, back bool }{{false, false}, {false, true}, {true, false}} {
		s.goOn(200)
		line.cut(cut.there, cut.back)
		t.Logf("not ready after %s", round(s.notReady(s.nodes[0])))
		s.serves(s.nodes[0])
		s.goOn(300)
		line.heal()
		t.Logf("ready %s after the network", round(s.ready(s.nodes[0])))
		s.recover()
	}
	s.finish()
}
