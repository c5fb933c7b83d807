//go:build linux

package main

import (
	"context"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"

	"github.com/counterfoil/counterfoil/bench/internal/load"
	"github.com/counterfoil/counterfoil/bench/internal/stage"
	"github.com/counterfoil/counterfoil/redisstore"
)

// serveFloor asks the store once a request, for nothing: SELECT 1, or PING.
func serveFloor(args []string) error {
	ask, err := roundTrip(args[1])
	if err != nil {
		return err
	}
	answer := []byte(`{"ok":true}`)
	return http.ListenAndServe(args[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := ask(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer) // the client may have gone
	}))
}

func roundTrip(url string) (func(ctx context.Context) error, error) {
	if strings.HasPrefix(url, "redis:") {
		option, err := redisstore.ParseURL(url)
		if err != nil {
			return nil, err
		}
		option.DisableCache = true
		client, err := rueidis.NewClient(option)
		return func(ctx context.Context) error { return client.Do(ctx, client.B().Ping().Build()).Error() }, err
	}
	pool, err := pgxpool.New(context.Background(), url)
	return func(ctx context.Context) error {
		var one int
		return pool.QueryRow(ctx, "SELECT 1").Scan(&one)
	}, err
}

// newFloor starts it.
func newFloor(ctx context.Context, postgres *stage.Postgres, redis *stage.Redis) (*contender, func() error, error) {
	c := &contender{name: "a bare PING", store: onRedis, redis: redis, postgres: postgres, database: "postgres"}
	url := ""
	if postgres != nil {
		c.name, c.store, url = "a bare SELECT 1", onPostgres, postgres.URL("postgres")
	} else {
		url = redis.URL
	}
	server, err := startRole(ctx, "floor", url)
	if err != nil {
		return nil, nil, err
	}
	c.addresses, c.pids = []string{server.Address}, []int{server.PID}
	c.calls = []*call{{name: "round trip", status: http.StatusOK, uncounted: true, prepare: always([][]byte{load.Request("GET", "/", server.Address, "")})}}
	return c, server.Stop, nil
}
