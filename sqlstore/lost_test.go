package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// Connections that the server has ended, or that lead to one that takes no
// writes any more, are thrown away, and what may be repeated is: no call fails.
func TestLostConnections(t *testing.T) {
	name := fmt.Sprintf("lost_%016x", rand.Uint64())
	db := postgresDB(t, url.Values{"application_name": {name}})
	db.SetMaxIdleConns(8)
	store := opened(t, sqlstore.PostgreSQL(db))
	sessions := store.Sessions()
	idle := func(do func(*sql.Conn)) {
		t.Helper()
		var held []*sql.Conn
		for range 5 {
			conn, err := db.Conn(t.Context())
			must(t, err)
			do(conn)
			held = append(held, conn)
		}
		for _, conn := range held {
			must(t, conn.Close())
		}
	}
	for name, spoil := range map[string]func(){
		"ended": func() {
			idle(func(*sql.Conn) {})
			other := openDB(t, "pgx", postgresURL(t))
			mustExec(t, other, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '`+name+`'`)
		},
		"read-only": func() {
			idle(func(c *sql.Conn) { mustExec(t, c, `SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY`) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			db.SetMaxIdleConns(-1) // none from the part before
			db.SetMaxIdleConns(8)
			add := session("ann")
			insert(t, sessions, add)
			for what, call := range map[string]func() error{
				"read":    func() error { _, err := sessions.Snapshot(t.Context(), add.ID); return err },
				"sign in": func() error { _, err := sessions.Insert(t.Context(), session("bob")); return err },
				"sign in from a session": func() error {
					s := session("ann")
					s.ParentID = add.ID
					_, err := sessions.Insert(t.Context(), s)
					return err
				},
				"end": func() error { _, err := sessions.End(t.Context(), endRequest(add.ID)); return err },
				"touch": func() error {
					return sessions.Touch(t.Context(), []counterfoil.Touch{{ID: add.ID, At: time.Now()}})
				},
				"update": func() error {
					s := insert(t, sessions, session("eve")).Session
					spoil()
					_, _, err := sessions.Update(t.Context(), s.ID, time.Minute, func(s *counterfoil.Session) (bool, error) { return true, nil })
					return err
				},
			} {
				if what == "sign in from a session" || what == "end" {
					add = insert(t, sessions, session("ann")).Session
				}
				spoil()
				if err := call(); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// A connection is cut after the server has committed and before it said so. A
// sign-in finds that it is there; a sign-out of all is not done twice.
func TestAnswerLost(t *testing.T) {
	direct := postgresDB(t, nil)
	opened(t, sqlstore.PostgreSQL(direct))
	through := mustURL(t, postgresURL(t))
	wire := startMutedWire(t, through.Host)
	q := through.Query()
	q.Set("search_path", text(t, direct, `SELECT current_schema()::text`))
	through.Host, through.RawQuery = wire.address(), q.Encode()
	db := openDB(t, "pgx", through.String())
	store := opened(t, sqlstore.PostgreSQL(db))

	db.SetMaxOpenConns(1)
	lose := func(call func() error, done func() error) error {
		t.Helper()
		// The connection knows the statements, so that one message carries out each.
		insert(t, store.Sessions(), session("warm"))
		if _, err := store.Sessions().Advance(t.Context(), signOut("warm")); err != nil {
			t.Fatal(err)
		}
		wire.mute.Store(true)
		answer := make(chan error, 1)
		go func() { answer <- call() }()
		until(t, "the server has done it", done)
		wire.cut()
		return <-answer
	}
	insert(t, store.Sessions(), session("ann")) // the first of a subject takes two statements
	add := session("ann")
	err := lose(func() error {
		snap, err := store.Sessions().Insert(context.WithoutCancel(t.Context()), add)
		if err == nil && (snap.Session.ID != add.ID || snap.Session.Subject != "ann") {
			err = fmt.Errorf("it is %+v", snap.Session)
		}
		return err
	}, func() error {
		var n int
		return errors.Join(direct.QueryRow(`SELECT 1 FROM counterfoil_sessions WHERE sid = $1`, add.ID).Scan(&n))
	})
	if err != nil {
		t.Errorf("a sign-in that was carried out: %v", err)
	}
	below := func() int64 {
		var below int64
		must(t, direct.QueryRow(`SELECT signed_out_below FROM counterfoil_subjects WHERE id = 'ann'`).Scan(&below))
		return below
	}
	was := text(t, direct, `SELECT epoch::text FROM counterfoil_subjects WHERE id = 'ann'`)
	err = lose(func() error {
		_, err := store.Sessions().Advance(context.WithoutCancel(t.Context()), signOut("ann"))
		return err
	}, func() error {
		if below() == 0 {
			return errors.New("not signed out")
		}
		return nil
	})
	if !errors.Is(err, counterfoil.ErrStoreUnavailable) {
		t.Errorf("a sign-out that nobody knows of: %v", err)
	}
	if now := fmt.Sprint(below() - 1); now != was {
		t.Errorf("signed out more than once: from %s to %s", was, now)
	}
}

// mutedWire leads to a server.
type mutedWire struct {
	listener net.Listener
	mute     atomic.Bool // what the server says is lost
	mu       sync.Mutex
	conns    []net.Conn
}

func startMutedWire(t *testing.T, to string) *mutedWire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w := &mutedWire{listener: listener}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, client, server)
			w.mu.Unlock()
			running.Go(func() { io.Copy(server, client); server.Close() })
			running.Go(func() { w.answers(client, server) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		w.cut()
		running.Wait()
	})
	return w
}

func (w *mutedWire) answers(client, server net.Conn) {
	defer client.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := server.Read(buffer)
		if err != nil {
			return
		}
		if w.mute.Load() {
			continue
		}
		if _, err := client.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (w *mutedWire) address() string { return w.listener.Addr().String() }

// cut ends all connections; new ones are good.
func (w *mutedWire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
	w.mute.Store(false)
}
