//go:build linux

package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/counterfoil/counterfoil/bench/internal/stage"
)

const counterfoilDatabase = "counterfoil"

// newCounterfoil starts the server and its live sessions.
func newCounterfoil(ctx context.Context, s settings, binary, store, database string, postgres *stage.Postgres) (*contender, func() error, error) {
	options := stage.ServeOptions{SyncDelay: s.sync}
	if postgres != nil {
		options.SyncDelay = 0 // PostgreSQL's to have
	}
	if s.profile != "" {
		var err error
		if options.Profile, err = stage.FreeAddress(); err != nil {
			return nil, nil, err
		}
	}
	server, err := stage.Serve(ctx, binary, database, options)
	if err != nil {
		return nil, nil, err
	}
	calls, err := counterfoilCalls(ctx, s, server, store)
	if err != nil {
		return nil, nil, errors.Join(err, server.Stop())
	}
	return &contender{
		name: "counterfoil", store: store, calls: calls, address: server.Address, pid: server.PID,
		database: counterfoilDatabase, postgres: postgres, profile: options.Profile,
	}, server.Stop, nil
}

func counterfoilCalls(ctx context.Context, s settings, server *stage.Counterfoil, store string) ([]*call, error) {
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
	}, nil
}
