package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/redisstore"
	"github.com/counterfoil/counterfoil/sqlstore"
)

const sessionsUsage = "redis://USER:PASSWORD@HOST:PORT keeps the sessions, rediss:// with TLS, several hosts of a cluster by comma; in --database when left out"

// storesValue is where everything is kept: --database and --sessions.
type storesValue struct{ database, sessions textValue }

func storesFlags(f *flags) *storesValue {
	v := &storesValue{database: defaultDatabase}
	f.add(&v.database, "database", "URL", "sqlite:FILE or postgres://USER@HOST/NAME")
	f.add(&v.sessions, "sessions", "URL", sessionsUsage)
	return v
}

// parse reads both flags. Its errors never repeat a URL, which may hold a password.
func (v *storesValue) parse() (*database, error) {
	d, err := parseDatabase(string(v.database))
	if err != nil || v.sessions == "" {
		return d, err
	}
	d.redis, err = parseSessions(string(v.sessions))
	return d, err
}

// redisServers is where --sessions points.
type redisServers struct {
	option   rueidis.ClientOption
	log      *slog.Logger // nil: silent
	replicas int          // that each change waits for
	store    *redisstore.Store
}

// replicasWithin is how long a change waits for replicas: far longer than one
// that follows takes, and less than a client waits.
const replicasWithin = time.Second

func parseSessions(value string) (*redisServers, error) {
	option, err := redisstore.ParseURL(value)
	if err != nil {
		return nil, usagef("--sessions: %v", err)
	}
	return &redisServers{option: option}, nil
}

// String names the servers without the password.
func (r *redisServers) String() string {
	scheme := "redis://"
	if r.option.TLSConfig != nil {
		scheme = "rediss://"
	}
	return scheme + strings.Join(r.option.InitAddress, ",")
}

// attach makes the store of the sessions over the SQL store.
func (r *redisServers) attach(db *sqlstore.Store) {
	log := r.log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r.store = redisstore.New(db, r.option, redisstore.Logger(log), redisstore.Wait(r.replicas, replicasWithin))
}

// fullStore is all that a server or an operator needs.
type fullStore interface {
	counterfoil.Store
	Users() directory.Store
}

// whole is the store over both databases, once they are connected.
func (d *database) whole() fullStore {
	if d.redis != nil {
		return d.redis.store
	}
	return d.store
}

// openWhole opens the store, and says which of the two cannot be.
func (d *database) openWhole(ctx context.Context) error {
	err := d.whole().Open(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sqlstore.ErrSessionsElsewhere):
		return d.fail(errors.New("its sessions are kept in Redis: give --sessions as its servers do"))
	case d.redis != nil && errors.Is(err, sqlstore.ErrSessionsHere):
		return d.fail(errors.New("it keeps sessions of its own: leave out --sessions, or take everything to a new database with counterfoil move --to … --to-sessions …"))
	case d.redis != nil && strings.Contains(err.Error(), "redisstore:"):
		return &databaseError{d.redis.String(), err}
	}
	return d.fail(err)
}
