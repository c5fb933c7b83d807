package sqlstore_test

import (
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/sqlstore"
	"github.com/counterfoil/counterfoil/verify"
)

// wire carries connections to a server, and can be cut (what is open is
// closed, and nothing new gets through) or hung (nothing is carried any more).
type wire struct {
	to       string
	listener net.Listener

	mu    sync.Mutex
	cut   bool
	hung  chan struct{} // nil: it carries; closed when it does again
	conns map[net.Conn]struct{}
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{to: to, listener: l, conns: make(map[net.Conn]struct{})}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { w.carry(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.set(true, false)
		serving.Wait()
	})
	return w
}

func (w *wire) set(cut, hung bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	switch {
	case hung && w.hung == nil:
		w.hung = make(chan struct{})
	case !hung && w.hung != nil:
		close(w.hung)
		w.hung = nil
	}
	if cut {
		for c := range w.conns {
			c.Close()
		}
	}
}

// keep takes note of a connection, unless the wire is cut.
func (w *wire) keep(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.cut {
		w.conns[c] = struct{}{}
	}
	return !w.cut
}

func (w *wire) drop(c net.Conn) {
	c.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

func (w *wire) carry(near net.Conn) {
	defer w.drop(near)
	far, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer w.drop(far)
	if !w.keep(near) || !w.keep(far) {
		return
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		both.Go(func() {
			defer way[1].Close()
			_, _ = io.Copy(way[1], readerFunc(func(p []byte) (int, error) {
				n, err := way[0].Read(p)
				w.mu.Lock()
				hung := w.hung
				w.mu.Unlock()
				if hung != nil {
					<-hung
				}
				return n, err
			}))
		})
	}
	both.Wait()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// degradedNode is an authority with degraded minting on.
func degradedNode(t *testing.T, s *sqlstore.Store) *counterfoil.Authority {
	t.Helper()
	a, err := counterfoil.New(t.Context(), s, counterfoil.Config{
		Issuer: "https://app.example", Audiences: []string{"app"}, Degraded: 5 * time.Minute,
		Seal: counterfoil.SealSecrets(make([]byte, 32)), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func refreshed(t *testing.T, a *counterfoil.Authority, g *counterfoil.Grant) (*counterfoil.Grant, time.Duration) {
	t.Helper()
	began := time.Now()
	fresh, err := a.Refresh(t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return fresh, time.Since(began)
}

// eventually waits until the store serves again, by itself.
func eventually(t *testing.T, a *counterfoil.Authority, g *counterfoil.Grant) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		fresh, _ := refreshed(t, a, g)
		if _, still := a.Degraded(); !fresh.Degraded && !still {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("the server answers, and the node still mints from copies")
}

func TestDegradedMintingOnPostgreSQL(t *testing.T) {
	server, err := url.Parse(postgresURL(t))
	if err != nil {
		t.Fatal(err)
	}
	direct := postgresDB(t, nil)
	var schema string
	if err := direct.QueryRow(`SELECT current_schema()`).Scan(&schema); err != nil {
		t.Fatal(err)
	}
	opened(t, sqlstore.PostgreSQL(direct))
	// That entries are kept for long enough was asked for long ago.
	if _, err := direct.Exec(`UPDATE counterfoil_meta SET retain_ms = 315000`); err != nil {
		t.Fatal(err)
	}
	w := newWire(t, server.Host)
	through := *server
	through.Host = w.listener.Addr().String()
	q := through.Query()
	q.Set("search_path", schema)
	through.RawQuery = q.Encode()
	db := openDB(t, "pgx", through.String())
	db.SetMaxOpenConns(6)
	a := degradedNode(t, sqlstore.PostgreSQL(db))
	g, err := a.StartSession(t.Context(), counterfoil.SignIn{Subject: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if fresh, _ := refreshed(t, a, g); fresh.Degraded {
		t.Fatal("degraded, and the server answers")
	}

	w.set(true, false)
	if fresh, took := refreshed(t, a, g); !fresh.Degraded || took > time.Second {
		t.Errorf("connections refused: degraded %v after %s", fresh.Degraded, took)
	}
	w.set(false, false)
	eventually(t, a, g)

	w.set(false, true)
	fresh, first := refreshed(t, a, g)
	again, second := refreshed(t, a, g)
	if !fresh.Degraded || !again.Degraded || first > 4*time.Second || second > time.Second {
		t.Errorf("a silent server: degraded %v after %s, %v after %s", fresh.Degraded, first, again.Degraded, second)
	}
	if err := a.Ready(t.Context()); err == nil || !a.ReadyDegraded(err) {
		t.Errorf("ready: %v", err)
	}
	w.set(false, false)
	eventually(t, a, g)

	// What the server answers is the truth, here that somebody ended it.
	other := degradedNode(t, sqlstore.PostgreSQL(direct))
	if err := other.RevokeSession(t.Context(), g.Session.ID, counterfoil.Revoked); err != nil {
		t.Fatal(err)
	}
	var ended *counterfoil.EndedError
	if _, err := a.Refresh(t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{}); !errors.As(err, &ended) {
		t.Errorf("ended elsewhere: %v", err)
	}
	w.set(true, false)
	if _, err := a.Refresh(t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{}); !errors.Is(err, verify.ErrUnavailable) {
		t.Errorf("ended elsewhere, and cut off: %v", err)
	}
}

// The first node that asks for a longer retention waits until no transaction
// can be under way that did not see it.
func TestDegradedMintingWaitsForTransactionsUnderWay(t *testing.T) {
	s := opened(t, sqlstore.PostgreSQL(postgresDB(t, nil)))
	unsettled, err := s.Feed().Retain(t.Context(), time.Hour)
	if err != nil || unsettled < 50*time.Second || unsettled > time.Minute {
		t.Errorf("unsettled for %s, %v", unsettled, err)
	}
	a := degradedNode(t, s)
	if _, err := a.StartSession(t.Context(), counterfoil.SignIn{Subject: "alice"}); err != nil {
		t.Fatal(err)
	}
	if n := a.Stats().DegradedCopies; n != 0 {
		t.Errorf("%d copies before it is settled", n)
	}
}

func TestDegradedMintingOnSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counterfoil.db")
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(path))
	if err != nil {
		t.Fatal(err)
	}
	a := degradedNode(t, sqlstore.SQLite(db))
	g, err := a.StartSession(t.Context(), counterfoil.SignIn{Subject: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if fresh, took := refreshed(t, a, g); !fresh.Degraded || took > time.Second {
		t.Errorf("the pool is closed: degraded %v after %s", fresh.Degraded, took)
	}
}
