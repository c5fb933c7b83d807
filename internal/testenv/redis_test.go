//go:build unix

package testenv

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func redisForTest(t *testing.T) string {
	t.Helper()
	bin := os.Getenv(RedisBin)
	if bin == "" {
		if os.Getenv(All) == "1" {
			t.Fatalf("%s is not set", RedisBin)
		}
		t.Skipf("%s is not set: run make test", RedisBin)
	}
	return bin
}

func TestCheckRedis(t *testing.T) {
	for version, ok := range map[string]bool{
		"Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1": true,
		"Redis server v=6.0.16 sha=0": false, "": false,
	} {
		if err := checkRedis(version); (err == nil) != ok {
			t.Errorf("%q: %v", version, err)
		}
	}
}

// What was acknowledged is there after kill -9 and a restart; a replica has
// it, and is a master once promoted.
func TestStartRedis(t *testing.T) {
	bin, ctx := redisForTest(t), t.Context()
	parent := t.TempDir()
	start := func(options ...string) *Redis {
		r, err := StartRedis(ctx, bin, parent, options...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(r.Dir); !os.IsNotExist(err) {
				t.Errorf("left behind: %s %v", r.Dir, err)
			}
		})
		return r
	}
	do := func(r *Redis, want string, command ...string) {
		t.Helper()
		if got, err := r.Do(ctx, command...); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", command, got, err, want)
		}
	}
	a, b := start(), start("maxmemory 30mb")
	do(b, "maxmemory\n31457280", "CONFIG", "GET", "maxmemory")
	do(a, "OK", "SET", "k", "1")
	first, err := a.Info(ctx, "run_id")
	if err != nil || len(first) != 40 {
		t.Fatalf("run_id %q, %v", first, err)
	}
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Do(ctx, "PING"); err == nil {
		t.Error("a killed server answers")
	}
	if err := a.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	do(a, "1", "GET", "k")
	if second, err := a.Info(ctx, "run_id"); err != nil || second == first {
		t.Errorf("run_id %q after %q, %v", second, first, err)
	}
	if err := b.ReplicaOf(ctx, a); err != nil {
		t.Fatal(err)
	}
	do(b, "1", "GET", "k")
	if _, err := b.Do(ctx, "SET", "k", "2"); err == nil {
		t.Error("a replica takes writes")
	}
	if err := b.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	do(b, "OK", "SET", "k", "2")
	if _, err := StartRedis(ctx, filepath.Join(parent, "none"), parent); err == nil {
		t.Error("a missing program was accepted")
	}
}

// A master of the cluster that is killed is replaced by its replica, and
// comes back as one.
func TestStartRedisCluster(t *testing.T) {
	bin, ctx := redisForTest(t), t.Context()
	c, err := StartRedisCluster(ctx, bin, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	old, err := c.Master(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Do(ctx, "SET", "k", "1"); err != nil {
		t.Fatal(err)
	}
	if err := old.Wait(ctx, func(info string) bool { // WAIT waits for what its own connection wrote
		return strings.Contains(RedisField(info, "slave0"), ",offset="+RedisField(info, "master_repl_offset")+",")
	}); err != nil {
		t.Fatal(err)
	}
	if err := old.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.each(ctx, func(r *Redis) (bool, error) {
		m, err := c.Master(ctx, "k")
		return err == nil && m != old, nil
	}); err != nil {
		t.Fatal(err)
	}
	now, err := c.Master(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := now.Do(ctx, "GET", "k"); err != nil || got != "1" {
		t.Errorf("after the failover: %q, %v", got, err)
	}
	if err := old.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitWhole(ctx); err != nil {
		t.Fatal(err)
	}
}
