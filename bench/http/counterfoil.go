//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/counterfoil/counterfoil/bench/internal/stage"
)

const counterfoilDatabase = "counterfoil"

// where is a store that counterfoil is measured on.
type where struct {
	store    string
	database string // URL
	postgres *stage.Postgres
	redis    *stage.Redis
	data     *data
}

// newCounterfoil starts as many servers as the most nodes that are asked for,
// and its live sessions, and returns a contender for each number of nodes.
func newCounterfoil(ctx context.Context, s settings, binary string, w where) (all []*contender, stop func() error, err error) {
	var servers []*stage.Counterfoil
	stop = func() (err error) {
		for _, server := range servers {
			err = errors.Join(err, server.Stop())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()
	options := stage.ServeOptions{SyncDelay: s.sync}
	if w.postgres != nil {
		options.SyncDelay = 0 // PostgreSQL's and Redis's to have
	}
	if w.redis != nil {
		options.Sessions = w.redis.URL
	}
	most := 1
	if w.store != onSQLite {
		most = slices.Max(s.nodes)
	}
	for n := range most {
		if options.Profile = ""; n == 0 && s.profile != "" {
			if options.Profile, err = stage.FreeAddress(); err != nil {
				return nil, stop, err
			}
		}
		server, err := stage.Serve(ctx, binary, w.database, options)
		if err != nil {
			return nil, stop, err
		}
		servers = append(servers, server)
		options.APIKey, options.Issuer = servers[0].APIKey, "http://"+servers[0].Address
	}
	for _, nodes := range s.nodes {
		if nodes > most {
			continue
		}
		// Requests name the first node as the host, whichever gets them.
		calls, err := counterfoilCalls(ctx, s, servers[0], w.store, nodes)
		if err != nil {
			return nil, stop, err
		}
		c := &contender{name: "counterfoil", store: w.store, calls: calls, database: counterfoilDatabase,
			postgres: w.postgres, redis: w.redis, data: w.data}
		if nodes == 1 {
			c.profile = options.Profile
		} else {
			c.name = fmt.Sprintf("counterfoil, %d nodes", nodes)
		}
		for _, server := range servers[:nodes] {
			c.addresses, c.pids = append(c.addresses, server.Address), append(c.pids, server.PID)
		}
		all = append(all, c)
	}
	return all, stop, nil
}

func counterfoilCalls(ctx context.Context, s settings, server *stage.Counterfoil, store string, nodes int) ([]*call, error) {
	signIns, tokens, err := server.Start(ctx, s.sessions)
	if err != nil {
		return nil, err
	}
	var session, refresh [][]byte
	for _, token := range tokens {
		session = append(session, server.Session(token))
		refresh = append(refresh, server.Refresh(token))
	}
	refreshGoal := 0.13
	if store == onSQLite {
		refreshGoal = 0.16
	}
	var everywhere [][]byte
	for n := range max(1, min(s.loaded[0]/4, 20_000)) {
		user := loadedUser(n)
		if s.loaded[0] == 0 {
			user = fmt.Sprintf("nobody-%d", n) // loading makes the others
		}
		everywhere = append(everywhere, server.RevokeAll(user))
	}
	started := &harvest{}
	return []*call{
		{name: "refresh", goal: refreshGoal, status: http.StatusOK, prepare: always(refresh)},
		{name: "live check, GET /session", goal: 0.22, status: http.StatusOK, prepare: always(session)},
		{name: "live check, introspection", status: http.StatusOK, prepare: func(ctx context.Context) (requests [][]byte, once bool, err error) {
			// With access tokens of just now: they do not live for long.
			grants, err := stage.Grants(ctx, server.Address, http.StatusOK, refresh)
			for _, g := range grants {
				requests = append(requests, server.Introspect(g.AccessToken))
			}
			return requests, false, err
		}},
		{name: "sign-in without the hash", goal: 0.08, status: http.StatusCreated, prepare: always(signIns), keep: started.add},
		{name: "revoke", goal: 0.08, status: http.StatusNoContent, prepare: func(context.Context) (requests [][]byte, once bool, err error) {
			for _, sid := range started.take() {
				requests = append(requests, server.Revoke(sid))
			}
			return requests, true, nil
		}},
		{name: "everywhere, 4 sessions", uncounted: true, status: http.StatusNoContent, prepare: always(everywhere)},
	}, nil
}
