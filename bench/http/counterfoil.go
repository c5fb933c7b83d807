//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"sync"

	"github.com/counterfoil/counterfoil/bench/internal/load"
	"github.com/counterfoil/counterfoil/bench/internal/stage"
)

const (
	counterfoilDatabase = "counterfoil"
	asJSON              = "Content-Type: application/json"
	asForm              = "Content-Type: application/x-www-form-urlencoded"
)

// answer is what this program reads of answers that carry a session.
type answer struct {
	AccessToken  string `json:"access_token"`
	SessionToken string `json:"session_token"`
	Session      struct {
		SID string `json:"sid"`
	} `json:"session"`
}

// counterfoil knows how to ask "counterfoil serve".
type counterfoil struct {
	address string
	key     string // header line
	signIns [][]byte
	refresh [][]byte
}

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
	cf := &counterfoil{address: server.Address, key: "Authorization: Bearer " + server.APIKey}
	calls, err := cf.calls(ctx, s, store)
	if err != nil {
		return nil, nil, errors.Join(err, server.Stop())
	}
	return &contender{
		name: "counterfoil", store: store, calls: calls, address: server.Address, pid: server.PID,
		database: counterfoilDatabase, postgres: postgres, profile: options.Profile,
	}, server.Stop, nil
}

func (cf *counterfoil) calls(ctx context.Context, s settings, store string) ([]*call, error) {
	var session, refresh [][]byte
	for n := range s.sessions {
		body := fmt.Sprintf(`{"subject":"user-%d","amr":["pwd"],"device":{"user_agent":"Mozilla/5.0 (X11; Linux x86_64)","ip":"203.0.113.7"}}`, n)
		cf.signIns = append(cf.signIns, load.Request("POST", "/v1/sessions", cf.address, body, cf.key, asJSON))
	}
	var mu sync.Mutex
	var broken error
	err := once(ctx, cf.address, 201, cf.signIns, func(body []byte) {
		var a answer
		err := json.Unmarshal(body, &a)
		mu.Lock()
		defer mu.Unlock()
		broken = errors.Join(broken, err)
		bearer := "Authorization: Bearer " + a.SessionToken
		session = append(session, load.Request("GET", "/v1/auth/session", cf.address, "", bearer))
		refresh = append(refresh, load.Request("POST", "/v1/auth/refresh", cf.address, "", bearer))
	})
	if err := errors.Join(err, broken); err != nil {
		return nil, fmt.Errorf("start sessions: %w", err)
	}
	cf.refresh = refresh
	refreshGoal := 0.13
	if store == onSQLite {
		refreshGoal = 0.16
	}
	started := &harvest{}
	return []*call{
		{name: "refresh", goal: refreshGoal, status: 200, prepare: always(refresh)},
		{name: "live check, GET /session", goal: 0.22, status: 200, prepare: always(session)},
		{name: "live check, introspection", status: 200, prepare: cf.introspections},
		{name: "sign-in without the hash", goal: 0.08, status: 201, prepare: always(cf.signIns), keep: func(body []byte) { started.add(sidOf(body)) }},
		{name: "revoke", goal: 0.08, status: 204, prepare: func(context.Context) (requests [][]byte, once bool, err error) {
			for _, sid := range started.take() {
				requests = append(requests, load.Request("DELETE", "/v1/sessions/"+sid, cf.address, "", cf.key))
			}
			return requests, true, nil
		}},
	}, nil
}

// introspections are requests with access tokens that were minted just now.
func (cf *counterfoil) introspections(ctx context.Context) (requests [][]byte, again bool, err error) {
	var mu sync.Mutex
	var broken error
	err = once(ctx, cf.address, 200, cf.refresh, func(body []byte) {
		var a answer
		err := json.Unmarshal(body, &a)
		mu.Lock()
		defer mu.Unlock()
		broken = errors.Join(broken, err)
		form := url.Values{"token": {a.AccessToken}}.Encode()
		requests = append(requests, load.Request("POST", "/oauth2/introspect", cf.address, form, cf.key, asForm))
	})
	return requests, false, errors.Join(err, broken)
}
