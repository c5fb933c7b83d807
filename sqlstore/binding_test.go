package sqlstore_test

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
)

// A database from before there were bindings keeps its sessions, unbound.
func TestSessionsFromBeforeBindings(t *testing.T) {
	dialects(t, func(t *testing.T, d dialect) {
		pool := d.fresh(t)
		first, err := fs.ReadFile(d.files, "0001_first.sql")
		if err != nil {
			t.Fatal(err)
		}
		mustExec(t, pool(), strings.Split(string(first), ";\n")...)
		mustExec(t, pool(),
			`INSERT INTO counterfoil_subjects (id, epoch) VALUES ('ann', 1)`,
			`INSERT INTO counterfoil_sessions (sid, subject_no, client_id, created_at, last_active_at, idle_ms, expires_at, epoch0, secret_hash)
				SELECT 'old', no, 'default', 1, 1, 1000, 9999999999999, 1, `+map[bool]string{true: `zeroblob(32)`, false: `decode(repeat('00', 32), 'hex')`}[strings.Contains(string(first), "STRICT")]+` FROM counterfoil_subjects`)
		sessions := opened(t, d.store(pool())).Sessions()
		snap, err := sessions.Snapshot(t.Context(), "old")
		if err != nil || snap.Session.Binding != nil || snap.Session.Subject != "ann" {
			t.Fatalf("%+v, %v", snap.Session, err)
		}
		want := counterfoil.Binding{Proofs: 3, RegisteredAt: snap.Session.CreatedAt}
		want.Key[0], want.Key[64] = 4, 7
		_, _, err = sessions.Update(t.Context(), "old", 0, func(s *counterfoil.Session) (bool, error) {
			b := want
			s.Binding = &b
			return false, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		snap, err = sessions.Snapshot(t.Context(), "old")
		if err != nil || snap.Session.Binding == nil || *snap.Session.Binding != want {
			t.Errorf("%+v, %v", snap.Session.Binding, err)
		}
		// What a later program wrote is refused, not read wrongly.
		mustExec(t, pool(), `UPDATE counterfoil_sessions SET binding = secret_hash`)
		if _, err := sessions.Snapshot(t.Context(), "old"); err == nil || !strings.Contains(err.Error(), "binding") {
			t.Errorf("an unknown form: %v", err)
		}
	})
}
