package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/testenv"
	"github.com/counterfoil/counterfoil/sqlstore"
	"github.com/counterfoil/counterfoil/verify"
)

// cluster is a primary and its standby.
type cluster struct{ primary, standby *testenv.Postgres }

func startCluster(t *testing.T, synchronous bool) *cluster {
	t.Helper()
	bin := os.Getenv(testenv.PostgresBin)
	if bin == "" {
		if os.Getenv(testenv.All) == "1" {
			t.Fatalf("%s is not set", testenv.PostgresBin)
		}
		t.Skipf("%s is not set: run make test", testenv.PostgresBin)
	}
	parent, err := testenv.TempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	primary, err := testenv.StartPostgres(t.Context(), bin, parent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { primary.Stop() })
	standby, err := testenv.StartStandby(t.Context(), primary, parent, synchronous)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { standby.Stop() })
	return &cluster{primary, standby}
}

// pool leads to whichever of the two takes writes.
func (c *cluster) pool(t *testing.T) *sql.DB {
	one, two := mustURL(t, c.primary.URL), mustURL(t, c.standby.URL)
	one.Host += "," + two.Host
	one.RawQuery += "&target_session_attrs=read-write&connect_timeout=2"
	return openDB(t, "pgx", one.String())
}

func mustURL(t *testing.T, text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// cut has the standby receive nothing more.
func (c *cluster) cut(t *testing.T) {
	t.Helper()
	if err := c.standby.Configure("primary_conninfo", "host=127.0.0.1 port=1"); err != nil {
		t.Fatal(err)
	}
	db := openDB(t, "pgx", c.primary.URL)
	until(t, "the standby receives nothing more", func() error {
		var n int
		if err := db.QueryRow(`SELECT count(*) FROM pg_stat_replication`).Scan(&n); err != nil || n > 0 {
			return fmt.Errorf("%d receivers, %w", n, err)
		}
		return nil
	})
}

// until waits until fn is content.
func until(t *testing.T, what string, fn func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		<-tick.C
	}
}

// testSeal is 32 bytes that all nodes share.
var testSeal = counterfoil.SealSecrets([]byte("0123456789abcdef0123456789abcdef"))

// startNode makes an authority over a pool of its own.
func startNode(t *testing.T, db *sql.DB, change ...func(*counterfoil.Config)) *counterfoil.Authority {
	t.Helper()
	config := counterfoil.Config{Issuer: "https://nodes.example", Audiences: []string{"app"}, Seal: testSeal, Logger: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&config)
	}
	a, err := counterfoil.New(t.Context(), sqlstore.PostgreSQL(db), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func signIn(t *testing.T, a *counterfoil.Authority, subject string) *counterfoil.Grant {
	t.Helper()
	g, err := a.StartSession(t.Context(), counterfoil.SignIn{Subject: subject})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func refresh(a *counterfoil.Authority, g *counterfoil.Grant) (*counterfoil.Grant, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return a.Refresh(ctx, g.SessionToken.Reveal(), counterfoil.RefreshRequest{})
}

func accepts(t *testing.T, a *counterfoil.Authority, g *counterfoil.Grant) error {
	t.Helper()
	v, err := a.Verifier("app")
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Check(t.Context(), g.AccessToken)
	return err
}

// An asynchronous standby is promoted that lacks the last revocations. One of
// two nodes lives on: it mints again by itself, what was acknowledged stays
// revoked, no token that was refused is accepted at any moment, and positions
// are not given twice. (SEC-32)
func TestPromotionOfAStandbyThatIsBehind(t *testing.T) {
	c := startCluster(t, false)
	var found lossCounter
	other, here := startNode(t, c.pool(t)), startNode(t, c.pool(t), func(c *counterfoil.Config) { c.Logger = slog.New(&found) })
	store := sqlstore.PostgreSQL(c.pool(t))
	ctx := t.Context()

	stays, ended, everywhere, kept, rights := signIn(t, other, "stays"), signIn(t, other, "ended"), signIn(t, other, "everywhere"), signIn(t, other, "kept"), signIn(t, other, "rights")
	gone := signIn(t, other, "kept")
	before := signIn(t, other, "before")
	must(t, other.RevokeSession(ctx, before.Session.ID, counterfoil.SignedOut))
	received(t, c)
	c.cut(t)
	lost, lostToo := signIn(t, other, "lost"), signIn(t, other, "lost")
	must(t, other.RevokeSession(ctx, lostToo.Session.ID, counterfoil.SignedOut))
	must(t, other.RevokeSession(ctx, ended.Session.ID, counterfoil.SignedOut))
	for range 3 { // the epoch is far ahead of the standby's
		must(t, other.RightsChanged(ctx, "everywhere"))
		must(t, other.RightsChanged(ctx, "rights"))
	}
	must(t, other.RevokeSubject(ctx, "everywhere", counterfoil.PasswordChanged))
	must(t, other.RevokeSubject(ctx, "kept", counterfoil.SignedOutEverywhere, counterfoil.Except(kept.Session.ID)))
	key := activeKey(t, store)
	must(t, other.RevokeKey(ctx, key))
	head, err := store.Feed().Head(ctx)
	must(t, err)
	fresh := signIn(t, other, "fresh")
	until(t, "the other node heard of it", func() error {
		if s := here.Stats(); s.FeedPosition < head.Position {
			return fmt.Errorf("at %d of %d", s.FeedPosition, head.Position)
		}
		return nil
	})
	refused := []*counterfoil.Grant{before, ended, everywhere, gone, stays} // the last one by its key
	for _, g := range refused {
		if err := accepts(t, here, g); err == nil {
			t.Fatalf("%s is accepted before the failover", g.Session.Subject)
		}
	}

	must(t, other.Close())
	must(t, c.primary.Kill())
	if err := here.Ready(ctx); !errors.Is(err, verify.ErrUnavailable) {
		t.Errorf("ready without a database: %v", err)
	}
	if _, err := refresh(here, stays); !errors.Is(err, verify.ErrUnavailable) {
		t.Errorf("refresh without a database: %v", err)
	}
	must(t, c.standby.Promote(ctx))

	// Whatever is minted on the way, of these nothing is accepted.
	until(t, "what was revoked is recorded again", func() error {
		for _, g := range []*counterfoil.Grant{ended, everywhere, gone} {
			next, err := refresh(here, g)
			if err == nil {
				if accepts(t, here, next) == nil {
					t.Fatalf("%s was revoked, and is accepted after the failover", g.Session.Subject)
				}
				return fmt.Errorf("%s is refreshed", g.Session.Subject)
			}
			if !errors.Is(err, counterfoil.ErrSessionRevoked) {
				return fmt.Errorf("%s: %w", g.Session.Subject, err)
			}
		}
		return nil
	})
	until(t, "the node mints again", func() error {
		for _, g := range []*counterfoil.Grant{stays, kept, rights} {
			next, err := refresh(here, g)
			if err != nil {
				return fmt.Errorf("%s: %w", g.Session.Subject, err)
			}
			if err := accepts(t, here, next); err != nil {
				return fmt.Errorf("%s: %w", g.Session.Subject, err)
			}
		}
		return here.Ready(ctx)
	})
	until(t, "the key is revoked again", func() error {
		return revokedKey(t, store, key)
	})
	until(t, "the verifiers of other nodes hear of the end of a session that was lost too", func() error {
		entries, err := store.Feed().Read(ctx, head.Position, 1000)
		for _, e := range entries {
			if e.ID == lostToo.Session.ID && e.Until.After(time.Now()) {
				return err
			}
		}
		return errors.Join(err, fmt.Errorf("no entry above %d", head.Position))
	})
	for _, g := range []*counterfoil.Grant{lost, fresh} {
		if _, err := refresh(here, g); !errors.Is(err, counterfoil.ErrSessionUnknown) {
			t.Errorf("%s, who signed in at the very end: %v", g.Session.Subject, err)
		}
	}
	after, err := store.Feed().Head(ctx)
	must(t, err)
	if after.Timeline <= head.Timeline || after.Position <= head.Position {
		t.Errorf("from %+v to %+v", head, after)
	}
	must(t, here.RevokeSession(ctx, signIn(t, here, "later").Session.ID, counterfoil.SignedOut))
	until(t, "the node follows the new timeline", func() error {
		if s := here.Stats(); s.FeedTimeline != after.Timeline || s.FeedPosition <= after.Position {
			return fmt.Errorf("at %d.%d", s.FeedTimeline, s.FeedPosition)
		}
		return nil
	})
	if n := found.Load(); n != 1 {
		t.Errorf("the loss was found %d times", n)
	}
	again := startNode(t, c.pool(t)) // it remembers nothing
	for _, g := range []*counterfoil.Grant{before, ended, everywhere, gone} {
		if _, err := refresh(again, g); !errors.Is(err, counterfoil.ErrSessionRevoked) {
			t.Errorf("%s on a new node: %v", g.Session.Subject, err)
		}
	}
	if now, err := store.Feed().Head(ctx); err != nil || now.Timeline != after.Timeline {
		t.Errorf("a second node began another timeline: %+v, %v", now, err)
	}
}

// lossCounter counts what a node says about lost revocations.
type lossCounter struct{ atomic.Int64 }

func (*lossCounter) Enabled(context.Context, slog.Level) bool { return true }
func (c *lossCounter) WithAttrs([]slog.Attr) slog.Handler     { return c }
func (c *lossCounter) WithGroup(string) slog.Handler          { return c }
func (c *lossCounter) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "has lost revocations") {
		c.Add(1)
	}
	return nil
}

// received waits until the standby has applied all that was committed.
func received(t *testing.T, c *cluster) {
	t.Helper()
	db := openDB(t, "pgx", c.primary.URL)
	until(t, "the standby has it all", func() error {
		var behind int64
		err := db.QueryRow(`SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), min(flush_lsn))::bigint FROM pg_stat_replication`).Scan(&behind)
		if err == nil && behind > 0 {
			err = fmt.Errorf("%d bytes behind", behind)
		}
		return err
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func activeKey(t *testing.T, store *sqlstore.Store) string {
	t.Helper()
	ring, err := store.Catalog().Keys(t.Context())
	must(t, err)
	for _, k := range ring.Keys {
		if k.State == counterfoil.KeyActive {
			return k.ID
		}
	}
	t.Fatal("no key signs")
	return ""
}

func revokedKey(t *testing.T, store *sqlstore.Store, key string) error {
	ring, err := store.Catalog().Keys(t.Context())
	if err != nil {
		return err
	}
	for _, k := range ring.Keys {
		if k.ID == key && k.State == counterfoil.KeyRevoked {
			return nil
		}
	}
	return errors.New("not revoked")
}

// A store that was set back, and nobody said so: nothing is minted from it
// until counterfoil restored was run.
func TestStoreThatWentBack(t *testing.T) {
	db := postgresDB(t, nil)
	var ahead atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	store := sqlstore.PostgreSQL(db, sqlstore.Clock(clock))
	a, err := counterfoil.New(t.Context(), store, counterfoil.Config{Issuer: "https://nodes.example", Audiences: []string{"app"},
		Seal: testSeal, Logger: slog.New(slog.DiscardHandler), Clock: clock})
	must(t, err)
	t.Cleanup(func() { a.Close() })
	g := signIn(t, a, "ann")
	var last string
	for i := range 20 {
		last = signIn(t, a, fmt.Sprint("user ", i)).Session.ID
		must(t, a.RevokeSession(t.Context(), last, counterfoil.Revoked))
	}
	at := func(position int64) {
		t.Helper()
		until(t, "it was read", func() error {
			if s := a.Stats(); s.FeedPosition < position {
				return fmt.Errorf("at %d", s.FeedPosition)
			}
			return nil
		})
	}
	at(20)
	for i := range int64(2) { // longer than anything is remembered
		ahead.Add(int64(10 * time.Minute))
		must(t, a.RevokeSession(t.Context(), signIn(t, a, "bob").Session.ID, counterfoil.Revoked))
		at(21 + i) // what is remembered is noted as the log is read
	}

	refused := func(what string) {
		t.Helper()
		until(t, what, func() error {
			if err := a.Ready(t.Context()); !errors.Is(err, counterfoil.ErrStoreWentBack) || !strings.Contains(err.Error(), "counterfoil restored") {
				return fmt.Errorf("ready: %w", err)
			}
			return nil
		})
		if _, err := refresh(a, g); !errors.Is(err, verify.ErrUnavailable) || !errors.Is(err, counterfoil.ErrStoreWentBack) {
			t.Errorf("%s: refresh: %v", what, err)
		}
	}
	good := func(what string) {
		t.Helper()
		until(t, what, func() error {
			if err := a.Ready(t.Context()); err != nil {
				return err
			}
			_, err := refresh(a, g)
			return err
		})
	}
	mustExec(t, db, `DELETE FROM counterfoil_feed WHERE id > 10`, `SELECT setval('counterfoil_feed_position', 10)`)
	refused("the log ends earlier than what was read long ago")
	mustExec(t, db, `UPDATE counterfoil_meta SET timeline = timeline + 1`, `SELECT setval('counterfoil_feed_position', 1000)`)
	good("a new timeline")
	mustExec(t, db, `UPDATE counterfoil_meta SET timeline = timeline - 5`)
	refused("an older timeline, such as that of a former primary")
	mustExec(t, db, `UPDATE counterfoil_meta SET timeline = timeline + 5`)
	good("the timeline that was followed")

	// What is lost and still remembered is recorded again.
	must(t, a.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut))
	at(1001)
	mustExec(t, db, `DELETE FROM counterfoil_feed WHERE id > 1000`, `SELECT setval('counterfoil_feed_position', 1000)`,
		`UPDATE counterfoil_sessions SET ended_at = NULL, end_reason = NULL, end_actor = NULL WHERE sid = '`+g.Session.ID+`'`)
	until(t, "the revocation is recorded again", func() error {
		s, err := a.Session(t.Context(), g.Session.ID)
		if err == nil && s.End == nil {
			err = errors.New("it lives")
		}
		return err
	})
	must(t, a.Ready(t.Context()))
}

// A server whose standbys nobody waits for is warned of; nobody but a primary
// is opened.
func TestStandbySettings(t *testing.T) {
	c := startCluster(t, false)
	store := opened(t, sqlstore.PostgreSQL(openDB(t, "pgx", c.primary.URL)))
	warnings, err := store.Warnings(t.Context())
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "synchronous_standby_names is empty") {
		t.Errorf("asynchronous: %q, %v", warnings, err)
	}
	must(t, c.primary.Configure("synchronous_standby_names", "*"))
	until(t, "a synchronous standby is no reason for a warning", func() error {
		if warnings, err := store.Warnings(t.Context()); err != nil || len(warnings) > 0 {
			return fmt.Errorf("%q, %w", warnings, err)
		}
		return nil
	})
	local := mustURL(t, c.primary.URL)
	local.RawQuery += "&synchronous_commit=local"
	// The command line of the tests' server says on; a role's setting is stronger, and so is that of a connection.
	warnings, err = sqlstore.PostgreSQL(openDB(t, "pgx", local.String())).Warnings(t.Context())
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "synchronous_commit is local") {
		t.Errorf("local: %q, %v", warnings, err)
	}
	received(t, c)
	standby := openDB(t, "pgx", c.standby.URL)
	if err := sqlstore.PostgreSQL(standby).Open(t.Context()); err == nil || !strings.Contains(err.Error(), "standby") {
		t.Errorf("opened a standby: %v", err)
	}
	s := sqlstore.PostgreSQL(standby)
	tail, err := s.Feed().Tail(t.Context(), 0)
	must(t, err)
	if _, err := tail.Next(t.Context()); !errors.Is(err, counterfoil.ErrStoreUnavailable) {
		t.Errorf("a tail of a standby: %v", err)
	}
	open := standby.Stats().OpenConnections
	must(t, tail.Close())
	if now := standby.Stats().OpenConnections; now != open-1 {
		t.Errorf("the connection to a standby was kept: %d, then %d", open, now)
	}
}
