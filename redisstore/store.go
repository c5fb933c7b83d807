package redisstore

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// Store is a [counterfoil.Store] whose sessions are in Redis. Make one with
// [New]. All methods are safe for concurrent use.
type Store struct {
	settings
	sql     *sqlstore.Store
	journal *sqlstore.Journal
	option  rueidis.ClientOption
	client  rueidis.Client // from Open on
	follow  *follow
	guard   guard
	told    told

	mu     sync.Mutex
	opened bool
	closed bool
	stop   context.CancelFunc
	done   sync.WaitGroup
}

var _ counterfoil.Store = (*Store)(nil)

type settings struct {
	prefix         string
	clock          func() time.Time // nil: Redis's own
	replicas       int
	replicasWithin time.Duration
	relaxed        bool
	keep           time.Duration
	log            *slog.Logger
}

// Option changes how a Store works.
type Option func(*settings)

// KeyPrefix sets what the names of all keys begin with. The default is "cf:".
func KeyPrefix(prefix string) Option { return func(s *settings) { s.prefix = prefix } }

// Clock sets the clock of snapshots, for tests; the SQL store has its own. The
// default is the clock of the Redis server, in the same script.
func Clock(now func() time.Time) Option { return func(s *settings) { s.clock = now } }

// Wait has each change of a session wait until so many replicas have it
// (WAIT), and fail after the time. A promotion of one of these loses nothing
// that was acknowledged.
func Wait(replicas int, within time.Duration) Option {
	return func(s *settings) { s.replicas, s.replicasWithin = replicas, within }
}

// RelaxedDurability accepts a Redis that may evict sessions (maxmemory-policy
// other than noeviction) and is silent about what a crash may cost. For tests
// and throw-away data.
func RelaxedDurability() Option { return func(s *settings) { s.relaxed = true } }

// KeepJournal sets for how long what was told to Redis stays in SQL, to be
// told again: a Redis that went further back is refused. The default is an hour.
func KeepJournal(d time.Duration) Option { return func(s *settings) { s.keep = d } }

// Logger sets where warnings go: what the settings of Redis may cost, servers
// that went back in time. The default is [slog.Default].
func Logger(log *slog.Logger) Option { return func(s *settings) { s.log = log } }

// New returns a Store. The SQL store must not have been opened, and is this
// one's from now on. Nothing is connected before [Store.Open].
func New(db *sqlstore.Store, option rueidis.ClientOption, options ...Option) *Store {
	s := &Store{sql: db, option: option, settings: settings{prefix: "cf:", keep: time.Hour, log: slog.Default()}}
	for _, o := range options {
		o(&s.settings)
	}
	s.journal = db.Journal(s.judge)
	s.follow = newFollow(db.Feed(), s.clock)
	s.guard.init()
	return s
}

// connectTimeout bounds a connection to a Redis that does not answer.
const connectTimeout = 3 * time.Second

func (s *Store) connect() error {
	option := s.option
	option.DisableCache = true
	if option.Dialer.Timeout == 0 {
		option.Dialer.Timeout = connectTimeout
	}
	if option.ConnWriteTimeout == 0 {
		option.ConnWriteTimeout = connectTimeout
	}
	if option.ClusterOption.MaxMovedRedirections == 0 {
		option.ClusterOption.MaxMovedRedirections = 16 // two servers may name each other for a moment
	}
	dial := option.DialCtxFn
	if dial == nil {
		dial = func(ctx context.Context, address string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
			if config != nil {
				return (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", address)
			}
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
	// Whoever answers over a new connection may be another one than before.
	option.DialCtxFn = func(ctx context.Context, address string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
		conn, err := dial(ctx, address, dialer, config)
		s.guard.suspect()
		return conn, err
	}
	client, err := rueidis.NewClient(option)
	if err != nil {
		return unavailable(err)
	}
	s.client = client
	return nil
}

// Open opens the SQL store, connects, and checks that this Redis belongs to
// the database, may keep sessions, and has not gone back in time.
func (s *Store) Open(ctx context.Context) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return failed("open", unavailable(errClosed))
	}
	if err := s.sql.Open(ctx); err != nil {
		return err
	}
	if s.opened {
		return nil
	}
	if err := s.connect(); err != nil {
		return failed("open", err)
	}
	defer func() {
		if err != nil {
			s.client.Close()
		}
	}()
	for _, step := range []func(context.Context) error{s.checkServers, s.claim, s.guard.passer(s), s.follow.fresh, s.retell} {
		if err := step(ctx); err != nil {
			return failed("open", err)
		}
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop, s.opened = stop, true
	s.done.Go(func() { s.tend(background) })
	return nil
}

var errClosed = errors.New("the store was closed")

// homeName reads the name that this Redis has in SQL, empty where it has none.
func (s *Store) homeName(ctx context.Context) (string, error) {
	home, err := s.client.Do(ctx, s.client.B().Get().Key(s.base("00")+"home").Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return "", nil
	}
	return home, unavailable(err)
}

// setHomeName gives it a name unless it has one, and returns it.
func (s *Store) setHomeName(ctx context.Context, home string) (string, error) {
	err := s.client.Do(ctx, s.client.B().Set().Key(s.base("00")+"home").Value(home).Nx().Build()).Error()
	if err != nil && !rueidis.IsRedisNil(err) {
		return "", unavailable(err)
	}
	return s.homeName(ctx)
}

// claim sees to it that this Redis and the database belong together.
func (s *Store) claim(ctx context.Context) error {
	there, err := s.homeName(ctx)
	if err != nil {
		return err
	}
	home, err := s.journal.Home(ctx)
	if err == nil && home == "" {
		if there != "" {
			return ErrForeign
		}
		home, err = s.journal.Claim(ctx, "redis:"+randomName())
	}
	if err == nil && there == "" { // new, or it lost everything
		s.guard.nameless.Store(true)
		there, err = s.setHomeName(ctx, home)
	}
	if err == nil && there != home {
		err = ErrForeign
	}
	return err
}

// Now asks both stores for their clocks and returns that of sessions. A
// server of Redis whose clock is elsewhere is an error.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	at, err := s.sql.Now(ctx)
	if err != nil {
		return time.Time{}, err
	}
	if err := s.guard.pass(ctx, s); err != nil {
		return time.Time{}, failed("read the clock", err)
	}
	for address, node := range s.client.Nodes() {
		before := time.Now()
		parts, err := node.Do(ctx, node.B().Time().Build()).AsStrSlice()
		if err != nil || len(parts) != 2 {
			if _, known := s.guard.identity(address); !known {
				continue // a replica, or one that is gone: its shards say so themselves
			}
			return time.Time{}, failed("read the clock", unavailable(err))
		}
		if s.clock != nil {
			continue
		}
		now, err := clockOf(parts[0], parts[1])
		if err != nil {
			return time.Time{}, failed("read the clock", err)
		}
		if skew := now.Sub(at); skew > clockTolerance+time.Since(before) || skew < -clockTolerance-time.Since(before) {
			return time.Time{}, failed("read the clock", unavailable(fmt.Errorf("the clocks of %s and of the database are %s apart", address, skew)))
		}
	}
	return at, nil
}

// clockTolerance is how far the clocks of the two stores may be apart.
const clockTolerance = 5 * time.Second

// Sessions returns the part that keeps sessions and subjects.
func (s *Store) Sessions() counterfoil.SessionStore { return sessions{s} }

// Feed returns the log of revocations, which is in SQL.
func (s *Store) Feed() counterfoil.FeedLog { return feed{s.follow.log, s.follow} }

// Catalog returns the part that keeps signing keys and API keys, in SQL.
func (s *Store) Catalog() counterfoil.Catalog { return catalog{s.sql.Catalog(), s.follow} }

// Users returns the part that keeps users, in SQL. Redis is told of what
// changes in their rights.
func (s *Store) Users() directory.Store { return users{s.sql.Users(), s} }

// InTx returns what can be done inside the application's own transaction on
// the SQL database: End, Advance, and reading. Redis is told by [Store.Committed].
func (s *Store) InTx(tx *sql.Tx) (counterfoil.SessionStore, error) {
	journal, err := s.journal.In(tx)
	if err != nil {
		return nil, err
	}
	subjects, err := s.sql.InTx(tx)
	if err != nil {
		return nil, err
	}
	return joined{sessions{s}, journal, subjects}, nil
}

// Close ends background work and closes the connections to Redis.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.opened {
		s.stop()
		s.done.Wait()
		s.client.Close()
	}
	return s.sql.Close()
}
