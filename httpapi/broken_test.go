package httpapi_test

import (
	"context"
	"errors"
	"hash/crc32"
	"time"

	"github.com/counterfoil/counterfoil"
)

var errDown = errors.New("connection refused")

// brokenStore has its catalog, and nothing else, while it is down.
type brokenStore struct{ counterfoil.Store }

func (brokenStore) Now(context.Context) (time.Time, error) { return time.Time{}, errDown }

func (b brokenStore) Sessions() counterfoil.SessionStore { return brokenSessions{b.Store.Sessions()} }

type brokenSessions struct{ counterfoil.SessionStore }

func (brokenSessions) Snapshot(context.Context, string) (counterfoil.Snapshot, error) {
	return counterfoil.Snapshot{}, errDown
}

func (brokenSessions) Insert(context.Context, counterfoil.Session) (counterfoil.Snapshot, error) {
	return counterfoil.Snapshot{}, errDown
}

func (brokenSessions) List(context.Context, counterfoil.ListQuery) ([]counterfoil.Session, string, error) {
	return nil, "", errDown
}

func (brokenSessions) Subject(context.Context, string) (counterfoil.Subject, error) {
	return counterfoil.Subject{}, errDown
}

// broken is another node of the same authority that lost its database.
func (s *site) broken() *counterfoil.Authority {
	s.Helper()
	auth, err := counterfoil.New(context.Background(), brokenStore{s.db.Store(s)}, s.auth.Config())
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { auth.Close() })
	return auth
}

// withChecksum appends the checksum that makes a made-up secret well-formed.
func withChecksum(text string) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := make([]byte, 6)
	v := crc32.ChecksumIEEE([]byte(text))
	for i := 5; i >= 0; i-- {
		sum[i] = alphabet[v%62]
		v /= 62
	}
	return text + string(sum)
}
