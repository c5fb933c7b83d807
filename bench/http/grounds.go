//go:build linux

package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"

	"github.com/counterfoil/counterfoil/bench/internal/stage"
)

// grounds is everything that was started.
type grounds struct {
	settings
	dir        string
	binary     string
	contenders []*contender
	stores     []func() error
	servers    []func() error
}

func (g *grounds) stop() error {
	err := g.stopServers()
	for _, stop := range slices.Backward(g.stores) {
		err = errors.Join(err, stop())
	}
	g.stores = nil
	return err
}

// stopServers leaves the stores.
func (g *grounds) stopServers() (err error) {
	for _, stop := range slices.Backward(g.servers) {
		err = errors.Join(err, stop())
	}
	g.servers = nil
	return err
}

// start starts a store and all that is measured on it.
func (g *grounds) start(ctx context.Context, store string) error {
	if store == onSQLite {
		path := filepath.Join(g.dir, "bench.db")
		return g.counterfoil(ctx, where{store: store, database: "sqlite:" + path, data: sqliteRows(path)})
	}
	postgres, err := stage.StartPostgres(ctx, g.sync)
	if err != nil {
		return err
	}
	g.stores = append(g.stores, postgres.Stop)
	url, err := postgres.Create(ctx, counterfoilDatabase)
	if err != nil {
		return err
	}
	if store == onPostgres {
		if err := g.counterfoil(ctx, where{store: store, database: url, postgres: postgres, data: postgresRows(postgres, counterfoilDatabase)}); err != nil {
			return err
		}
		return g.peers(ctx, postgres, nil)
	}
	redis, err := g.redis(ctx)
	if err != nil {
		return err
	}
	if err := g.counterfoil(ctx, where{store: store, database: url, postgres: postgres, redis: redis, data: redisRecords(redis, postgres, counterfoilDatabase)}); err != nil {
		return err
	}
	if !g.peer {
		return nil
	}
	// Of its own, so that each one's memory can be told.
	if redis, err = g.redis(ctx); err != nil {
		return err
	}
	return g.peers(ctx, nil, redis)
}

func (g *grounds) redis(ctx context.Context) (*stage.Redis, error) {
	redis, err := stage.StartRedis(ctx, g.sync)
	if err == nil {
		g.stores = append(g.stores, redis.Stop)
	}
	return redis, err
}

func (g *grounds) counterfoil(ctx context.Context, w where) error {
	all, stop, err := newCounterfoil(ctx, g.settings, g.binary, w)
	if err != nil {
		return err
	}
	g.servers, g.contenders = append(g.servers, stop), append(g.contenders, all...)
	return nil
}

// peers are the hybrid and the bare round trip.
func (g *grounds) peers(ctx context.Context, postgres *stage.Postgres, redis *stage.Redis) error {
	if !g.peer {
		return nil
	}
	for _, start := range []func() (*contender, func() error, error){
		func() (*contender, func() error, error) { return newHybrid(ctx, g.settings, postgres, redis) },
		func() (*contender, func() error, error) { return newFloor(ctx, postgres, redis) },
	} {
		c, stop, err := start()
		if err != nil {
			return err
		}
		g.servers, g.contenders = append(g.servers, stop), append(g.contenders, c)
	}
	return nil
}
