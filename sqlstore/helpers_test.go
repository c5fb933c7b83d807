package sqlstore_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"modernc.org/sqlite"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
)

// commits counts, and slows down, the commits of the databases in files whose
// name has its mark.
type commits struct {
	n     atomic.Int64
	delay atomic.Int64 // nanoseconds in each commit
}

var (
	observed sync.Map // mark -> *commits
	hook     = sync.OnceFunc(func() {
		sqlite.RegisterConnectionHook(func(conn sqlite.ExecQuerierContext, dsn string) error {
			observed.Range(func(mark, value any) bool {
				if strings.Contains(dsn, mark.(string)) {
					c := value.(*commits)
					conn.(sqlite.HookRegisterer).RegisterCommitHook(func() int32 {
						c.n.Add(1)
						time.Sleep(time.Duration(c.delay.Load())) // 0 but in benchmarks: a slower disk
						return 0
					})
				}
				return true
			})
			return nil
		})
	})
)

// observe is called before the database at path is opened.
func observe(t testing.TB, path string) *commits {
	hook()
	c := &commits{}
	observed.Store(path, c)
	t.Cleanup(func() { observed.Delete(path) })
	return c
}

// session is one that starts now.
func session(subject string) counterfoil.Session {
	now := time.Now()
	_, hash := opaque.New(opaque.SessionToken, opaque.NewID())
	return counterfoil.Session{
		ID: opaque.NewSelector(subject), Subject: subject, ClientID: "default",
		CreatedAt: now, LastActiveAt: now, IdleTimeout: 7 * 24 * time.Hour, ExpiresAt: now.Add(30 * 24 * time.Hour),
		AuthTime: now, Methods: []string{"pwd"}, SecretHash: hash,
		Device: counterfoil.Device{
			UserAgent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
			IP:        "203.0.113.77",
		},
	}
}

func insert(t testing.TB, s counterfoil.SessionStore, add counterfoil.Session) counterfoil.Snapshot {
	t.Helper()
	snap, err := s.Insert(t.Context(), add)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func signOut(subject string) counterfoil.Advance {
	return counterfoil.Advance{Subject: subject, SignOut: true, Retain: time.Minute,
		End: counterfoil.End{Reason: counterfoil.PasswordChanged, Actor: "user"}}
}

func endRequest(id string) counterfoil.EndRequest {
	return counterfoil.EndRequest{ID: id, Retain: time.Minute, End: counterfoil.End{Reason: counterfoil.SignedOut, Actor: "user"}}
}

func status(t testing.TB, s counterfoil.SessionStore, id string) counterfoil.Status {
	t.Helper()
	snap, err := s.Snapshot(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return snap.Session.Status(snap.Now)
}
