package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
)

// Store keeps everything an authority keeps in one SQL database. Its methods
// are safe for concurrent use. Errors wrap [counterfoil.ErrStoreUnavailable]
// when the database could not be asked.
type Store struct {
	compiler
	settings
	db     *sql.DB
	engine engine
	judge  func(ctx context.Context, sid string) (Kept, error) // nil: the sessions are here
}

var _ counterfoil.Store = (*Store)(nil)

type settings struct {
	prefix  string
	clock   func() time.Time // nil: PostgreSQL's own
	migrate bool
	relaxed bool
	aside   bool // sessions may be elsewhere
	moving  bool // opened by a move, also where it cannot be used
}

// Option changes how a Store works.
type Option func(*settings)

// TablePrefix sets what the names of tables and indexes begin with, so that
// several authorities can share a database: lower-case letters, digits and
// underscores, a letter first, at most 30. Open refuses others. The default
// is "counterfoil_".
func TablePrefix(prefix string) Option { return func(s *settings) { s.prefix = prefix } }

// Clock sets the store's clock, for tests. The default is time.Now on SQLite
// and, on PostgreSQL, the server's clock in the same statement.
func Clock(now func() time.Time) Option { return func(s *settings) { s.clock = now } }

// WithoutMigrations makes Open refuse a database whose tables are not there
// or are older, instead of creating and migrating them.
func WithoutMigrations() Option { return func(s *settings) { s.migrate = false } }

// WithoutSessions accepts a database whose sessions are kept elsewhere: for who
// needs its keys or wants to look at it, and neither ends sessions nor changes
// users.
func WithoutSessions() Option { return func(s *settings) { s.aside = true } }

// RelaxedDurability accepts SQLite connections whose synchronous setting is
// below FULL, and PostgreSQL's synchronous_commit off. A power failure may then undo the last commits: a session that
// was revoked lives again. For tests and throw-away data.
func RelaxedDurability() Option { return func(s *settings) { s.relaxed = true } }

// SQLite returns a Store on a SQLite database. Nothing is opened or changed
// before [Store.Open].
func SQLite(db *sql.DB, options ...Option) *Store {
	return newStore(sqlite, db, settings{prefix: defaultPrefix, clock: time.Now, migrate: true}, options)
}

// PostgreSQL returns a Store on a PostgreSQL database, in the schema that the
// connections find first. Nothing is opened or changed before [Store.Open].
// Bound the pool (db.SetMaxOpenConns, say 16): an unbounded one asks the server
// for a connection a request.
func PostgreSQL(db *sql.DB, options ...Option) *Store {
	return newStore(postgresql, db, settings{prefix: defaultPrefix, migrate: true}, options)
}

func newStore(d dialect, db *sql.DB, set settings, options []Option) *Store {
	for _, option := range options {
		option(&set)
	}
	s := &Store{settings: set, db: db}
	s.compiler.dialect, s.compiler.prefix = d, set.prefix
	if d == sqlite {
		s.engine = newFile(&s.compiler, db, set.relaxed)
	} else {
		s.engine = newPool(s)
	}
	return s
}

// Open checks the connections and the schema, and creates or migrates it.
// Tables that are not Counterfoil's, or are of a newer version, are an error
// and stay untouched. Several processes may open one database at once.
func (s *Store) Open(ctx context.Context) error {
	if !prefixPattern.MatchString(s.settings.prefix) {
		return fmt.Errorf("sqlstore: TablePrefix %q: want lower-case letters, digits and underscores, a letter first, at most 30", s.settings.prefix)
	}
	err := s.open(ctx)
	if err == nil {
		err = s.adoptAtOpen(ctx)
	}
	if err != nil {
		return failed("open", err)
	}
	return nil
}

// Now asks the store for its clock.
func (s *Store) Now(ctx context.Context) (now time.Time, err error) {
	err = s.engine.view(ctx, func(on runner) (err error) {
		now, err = s.now(ctx, on)
		return err
	})
	if err != nil {
		return time.Time{}, failed("read the clock", err)
	}
	return now, nil
}

// now asks the database even where the clock is ours: the answer says that it
// could be reached.
func (s *Store) now(ctx context.Context, on runner) (now time.Time, err error) {
	found, err := one(ctx, on, func(r *row) { now = s.clockOr(r) }, `SELECT {clock} FROM {meta}`)
	if err == nil && !found {
		err = s.noMeta(ctx, on)
	}
	return now, err
}

// instant is now without asking the database for what it need not tell.
func (s *Store) instant(ctx context.Context, on runner) (time.Time, error) {
	if s.clock == nil {
		return s.now(ctx, on)
	}
	return fromMillis(s.clock().UnixMilli()), nil
}

// clockOr reads the server's clock from a column unless the store's is ours.
func (s *Store) clockOr(r *row) time.Time {
	at := r.time()
	if s.clock != nil {
		at = fromMillis(s.clock().UnixMilli())
	}
	return at
}

// clockArgument is the $1 of {now}.
func (s *Store) clockArgument() any {
	if s.clock == nil {
		return nil
	}
	return s.clock().UnixMilli()
}

// Sessions returns the part that keeps sessions and subjects.
func (s *Store) Sessions() counterfoil.SessionStore { return &sessions{s, s.engine} }

// Feed returns the log of revocations.
func (s *Store) Feed() counterfoil.FeedLog { return feed{s} }

// Catalog returns the part that keeps signing keys and API keys.
func (s *Store) Catalog() counterfoil.Catalog { return catalog{s} }

// Users returns the part that keeps the users who sign in here.
func (s *Store) Users() directory.Store { return users{s} }

// InTx returns the sessions inside the application's own transaction on the
// same database. Each call is in a savepoint: its error undoes it alone.
// Nothing is retried, so a serialization failure is the application's to
// repeat.
func (s *Store) InTx(tx *sql.Tx) (counterfoil.SessionStore, error) {
	if tx == nil {
		return nil, errors.New("sqlstore: InTx: tx is nil")
	}
	return &sessions{s, join(&s.compiler, tx)}, nil
}

// Committed has nothing to do: the sessions were in the transaction.
func (s *Store) Committed(context.Context, ...counterfoil.Revocation) error { return nil }

// Close waits for changes under way and frees what the store holds. The
// database stays open. Calls after it fail with [counterfoil.ErrStoreUnavailable].
func (s *Store) Close() error {
	if f, ok := s.engine.(*file); ok {
		return f.close()
	}
	return nil
}
