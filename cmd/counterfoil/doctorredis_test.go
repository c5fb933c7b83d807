//go:build unix

package main

import (
	"context"
	"os"
	"testing"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

func TestDoctorJudgesRedis(t *testing.T) {
	healthy := func() *redisState {
		return &redisState{version: "7.0.15", role: "master", policy: "noeviction", aof: true, fsync: "always", replicas: 1, used: 10, limit: 100}
	}
	for _, test := range []struct {
		change func(*redisState)
		status string
		words  string
	}{
		{func(*redisState) {}, statusOK, "loses nothing"},
		{func(s *redisState) { s.fsync = "everysec" }, statusOK, "about a second"},
		{func(s *redisState) { s.version = "6.2.1" }, statusFail, "too old"},
		{func(s *redisState) { s.policy = "allkeys-lru" }, statusFail, "noeviction"},
		{func(s *redisState) { s.aofFailed = true }, statusFail, "no more writes"},
		{func(s *redisState) { s.aof = false }, statusWarn, "appendonly"},
		{func(s *redisState) { s.fsync = "no" }, statusWarn, "appendfsync"},
		{func(s *redisState) { s.used = 90 }, statusWarn, "maxmemory"},
		{func(s *redisState) { s.replicas = 0 }, statusWarn, "no replica"},
		{func(s *redisState) { s.lagging = 1 }, statusWarn, "do not follow"},
		{func(s *redisState) { s.role, s.replicas, s.linkDown = "slave", 0, true }, statusWarn, "lost its master"},
	} {
		s := healthy()
		test.change(s)
		expect(t, judgeRedis("r", s), "r", test.status, test.words)
	}
}

func TestDoctorOnRedis(t *testing.T) {
	bin := os.Getenv(testenv.RedisBin)
	if bin == "" {
		if os.Getenv(testenv.All) == "1" {
			t.Fatal(testenv.RedisBin + " is not set")
		}
		t.Skip(testenv.RedisBin + " is not set: run make test")
	}
	server, err := testenv.StartRedis(context.Background(), bin, t.TempDir(), "appendonly no", "maxmemory-policy allkeys-lru")
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	defer func() {
		if !stopped {
			_ = server.Stop()
		}
	}()
	path := sqliteFor(t)
	look := func() []finding {
		return diagnose(t, nil, nil, nil, "--database", "sqlite:"+path, "--sessions", "redis://"+server.Addr)
	}
	found := look()
	expect(t, found, server.Addr, statusFail, "allkeys-lru")
	expect(t, found, server.Addr, statusWarn, "appendonly is off")
	expect(t, found, server.Addr, statusWarn, "no replica")
	expect(t, found, "feed: sessions", statusWarn, "counterfoil move")
	change(t, "sqlite", path, "UPDATE counterfoil_meta SET sessions_in = 'redis'")
	expect(t, diagnose(t, nil, nil, nil, "--database", "sqlite:"+path), "feed: sessions", statusFail, "--sessions")
	stopped = true
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	expect(t, look(), "sessions: reach", statusFail, "nobody is signed out")
}
