package sqlstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/counterfoil/counterfoil"
)

// SessionTarget takes the sessions of a [Move] whose target keeps them
// elsewhere (package redisstore: Importer and Sum).
type SessionTarget interface {
	// Home names the place; fresh says that nothing was ever kept there.
	Home(ctx context.Context) (home string, fresh bool, err error)
	// Import adds sessions as they are: End and Epoch0 are the session's own.
	Import(ctx context.Context, list []counterfoil.Session) (added int, err error)
	// Scan tells of every session there, Sum what it tells of one that is
	// there as it is here.
	Scan(ctx context.Context, fn func(sid string, sum [sha256.Size]byte) error) error
	Sum(s counterfoil.Session) ([sha256.Size]byte, error)
	// Finish says that all are there.
	Finish(ctx context.Context) error
}

// errSessionsUsed says that sessions can be taken to an empty place only: what
// an interrupted run has left there may have been revoked since.
var errSessionsUsed = errors.New("sessions were kept or brought there before: empty it first (FLUSHDB), unless another deployment uses it")

// skipped are tables that stay empty where the sessions are elsewhere.
func (m *Move) skipped(table string) bool {
	return m.Sessions != nil && (table == "sessions" || table == "journal")
}

// claimSessions makes sure of the place before anything is refused.
func (m *Move) claimSessions(ctx context.Context) error {
	if m.Sessions == nil {
		return nil
	}
	var elsewhere string
	err := m.from.engine.view(ctx, func(on runner) error {
		_, err := one(ctx, on, func(r *row) { elsewhere = r.text() }, `SELECT sessions_in FROM {meta}`)
		return err
	})
	if err != nil {
		return err
	}
	if elsewhere != "" {
		return fmt.Errorf("the sessions of %s are elsewhere already (%s): they stay there when everything else is moved", m.Source, elsewhere)
	}
	home, fresh, err := m.Sessions.Home(ctx)
	if err == nil && !fresh {
		err = fmt.Errorf("the new place of the sessions: %w", errSessionsUsed)
	}
	m.home = home
	return err
}

// bringSessions takes all sessions to their new place, and proves that they
// and no others are there. Writes are refused meanwhile.
func (m *Move) bringSessions(ctx context.Context) error {
	if m.Sessions == nil {
		return nil
	}
	sums := map[string][sha256.Size]byte{}
	var total int64
	err := m.from.engine.view(ctx, func(on runner) error {
		_, err := one(ctx, on, func(r *row) { total = r.int() }, `SELECT count(*) FROM {sessions}`)
		return err
	})
	if err != nil {
		return err
	}
	for after := ""; ; {
		list, err := m.from.wholeSessions(ctx, after)
		if err != nil {
			return fmt.Errorf("read table sessions of %s: %w", m.Source, err)
		}
		for _, s := range list {
			if sums[s.ID], err = m.Sessions.Sum(s); err != nil {
				return &rowError{"sessions", "sid", s.ID, err}
			}
			after = s.ID
		}
		if _, err := m.Sessions.Import(ctx, list); err != nil {
			return err
		}
		m.tell(MoveProgress{Phase: MoveFenced, Table: "sessions", Rows: int64(len(sums)), Total: total})
		if len(list) < moveChunk {
			break
		}
	}
	if int64(len(sums)) != total { // one without a subject
		return fmt.Errorf("table sessions: %w: %d rows, and %d were read", errDiffers, total, len(sums))
	}
	found := 0
	err = m.Sessions.Scan(ctx, func(sid string, sum [sha256.Size]byte) error {
		if want, ok := sums[sid]; !ok || want != sum {
			return fmt.Errorf("session %.64q: %w", sid, errDiffers)
		}
		found++
		return nil
	})
	if err == nil && found != len(sums) {
		err = fmt.Errorf("%w: %d sessions there, want %d", errDiffers, found, len(sums))
	}
	if err == nil {
		err = m.Sessions.Finish(ctx)
	}
	m.report.Tables = append(m.report.Tables, MovedTable{Name: "sessions", Rows: total})
	return err
}

// wholeSessions reads sessions with their subjects, their ends as their own
// rows have them.
func (s *Store) wholeSessions(ctx context.Context, after string) (list []counterfoil.Session, err error) {
	err = s.engine.view(ctx, func(on runner) error {
		list = nil
		return each(ctx, on, func(r *row) error {
			own := readSession(r)
			own.Subject = r.text()
			list = append(list, own.Session)
			return nil
		}, `SELECT `+sessionColumns+`, u.id FROM {sessions} s JOIN {subjects} u ON u.no = s.subject_no WHERE s.sid > $1 ORDER BY s.sid LIMIT $2`,
			after, moveChunk)
	})
	return list, err
}
