package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// side is a database of a move.
type side struct {
	db    *sql.DB
	store func(*sql.DB, ...sqlstore.Option) *sqlstore.Store
	name  string
}

func (s side) isSQLite() bool { return strings.HasPrefix(s.name, "sqlite") }

var sides = map[string]func(t *testing.T) side{
	"SQLite": func(t *testing.T) side {
		path := filepath.Join(t.TempDir(), "side.db")
		return side{sqliteDB(t, path), sqlstore.SQLite, "sqlite:" + path}
	},
	"PostgreSQL": func(t *testing.T) side {
		return side{postgresDB(t, nil), sqlstore.PostgreSQL, "postgres://here"}
	},
}

func eachMove(t *testing.T, run func(t *testing.T, from, to side)) {
	for from := range sides {
		for to := range sides {
			t.Run(from+" to "+to, func(t *testing.T) { run(t, sides[from](t), sides[to](t)) })
		}
	}
}

func newMove(t *testing.T, from, to side) *sqlstore.Move {
	a, b := from.store(from.db), to.store(to.db)
	t.Cleanup(func() { a.Close(); b.Close() })
	m := sqlstore.NewMove(a, b)
	m.Source, m.Target = from.name, to.name
	return m
}

// rowsOf are the tables that randomised tests fill, with a maker of rows: a
// key of few, so that the sides have some in common.
type rowsOf struct {
	table, key string
	columns    string
	row        func(r *rand.Rand, key int) []any
}

func maybe(r *rand.Rand, v any) any {
	if r.IntN(3) == 0 {
		return nil
	}
	return v
}

func words(r *rand.Rand) string {
	list := []string{"", "a", "Ä", "zz", "\u2028", "'", `"`, "{}", "$1", "\\", "ünï\tcode", strings.Repeat("long ", 50), "🔑"}
	return list[r.IntN(len(list))] + list[r.IntN(len(list))]
}

func number(r *rand.Rand) int64 {
	list := []int64{0, 1, -1, math.MaxInt64, math.MinInt64, 1763770000123}
	if r.IntN(2) == 0 {
		return r.Int64()
	}
	return list[r.IntN(len(list))]
}

func blob(r *rand.Rand) []byte {
	b := make([]byte, r.IntN(40))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

var filled = []rowsOf{
	{"subjects", "no", "no, id, epoch, signed_out_below, signed_out_at, signed_out_reason, sweep_at, roles, disabled", func(r *rand.Rand, key int) []any {
		return []any{key + 1, fmt.Sprintf("user-%d", r.IntN(2000)), number(r), number(r), maybe(r, number(r)), maybe(r, words(r)), maybe(r, number(r)), maybe(r, words(r)), r.IntN(2) == 1}
	}},
	{"sessions", "sid", "sid, subject_no, client_id, parent_sid, derived, rev, created_at, last_active_at, idle_ms, expires_at, epoch0, secret_hash, user_agent, extra, binding, ended_at", func(r *rand.Rand, key int) []any {
		return []any{fmt.Sprintf("%s%d", []string{"", "a", "Z", "é", "_"}[key%5], key), number(r), words(r), maybe(r, words(r)), r.IntN(2) == 1, r.IntN(9), number(r) / 4, number(r) / 4, 7, number(r), number(r), blob(r), maybe(r, words(r)), maybe(r, words(r)), maybe(r, blob(r)), maybe(r, number(r))}
	}},
	{"users", "id", "id, email, email_key, password, rev, created_at, updated_at, reset_hash, passkeys", func(r *rand.Rand, key int) []any {
		return []any{fmt.Sprintf("u%d", key), words(r), fmt.Sprintf("mail-%d", r.IntN(2000)), words(r), r.IntN(9), number(r), number(r), maybe(r, blob(r)), maybe(r, words(r))}
	}},
	{"feed", "id", "id, kind, ref, stale_below, revoked_below, except_sid, until", func(r *rand.Rand, key int) []any {
		return []any{key*7 + 1, "s", words(r), number(r), number(r), maybe(r, words(r)), number(r)}
	}},
	{"throttle", "key", "key, failures, not_before, expires_at", func(r *rand.Rand, key int) []any {
		return []any{fmt.Sprintf("%c%d", 'a'+rune(key%26), key), number(r), maybe(r, number(r)), number(r)}
	}},
}

// scramble changes a table at random: some rows go, some come, some change.
func (s side) scramble(t *testing.T, r *rand.Rand, of rowsOf, n int) {
	t.Helper()
	tx, err := s.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	names := strings.Split(of.columns, ", ")
	places := make([]string, len(names))
	for i := range places {
		places[i] = fmt.Sprintf("$%d", i+1)
	}
	overriding := " OVERRIDING SYSTEM VALUE"
	if s.isSQLite() {
		overriding = ""
	}
	if _, err := tx.Exec(`DELETE FROM counterfoil_`+of.table+` WHERE `+of.key+` IN (SELECT `+of.key+` FROM counterfoil_`+of.table+` ORDER BY 1 LIMIT $1)`, r.IntN(n)); err != nil {
		t.Fatal(err)
	}
	for range n {
		values := of.row(r, r.IntN(2*n))
		if s.isSQLite() {
			for i, v := range values {
				if b, ok := v.(bool); ok {
					values[i] = 0
					if b {
						values[i] = 1
					}
				}
			}
		}
		if _, err := tx.Exec(`DELETE FROM counterfoil_`+of.table+` WHERE `+of.key+` = $1`, values[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(`INSERT INTO counterfoil_`+of.table+` (`+of.columns+`)`+overriding+` VALUES (`+strings.Join(places, ", ")+`) ON CONFLICT DO NOTHING`, values...); err != nil {
			t.Fatal(of.table, values, err)
		}
	}
	if !s.isSQLite() && of.table == "subjects" {
		if _, err := tx.Exec(`SELECT setval(pg_get_serial_sequence('counterfoil_subjects', 'no'), $1)`, 1_000_000); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// dump is a table as text, the same for both dialects.
func (s side) dump(t *testing.T, of rowsOf) (list []string) {
	t.Helper()
	columns := strings.Split(of.columns, ", ")
	rows, err := s.db.Query(`SELECT ` + of.columns + ` FROM counterfoil_` + of.table + ` ORDER BY ` + of.key)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range into {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		for i, v := range values {
			switch v := v.(type) {
			case bool:
				values[i] = int64(0)
				if v {
					values[i] = int64(1)
				}
			case []byte:
				values[i] = fmt.Sprintf("%x", v)
			}
		}
		list = append(list, fmt.Sprintf("%#v", values))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// Random tables become equal, whatever the target held of an earlier try, and
// whatever changes between the tries.
func TestMoveMakesSidesEqual(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	eachMove(t, func(t *testing.T, from, to side) {
		random := rand.New(rand.NewPCG(seed, 0))
		opened(t, from.store(from.db))
		rows := 1500 // more than one chunk of some tables
		for _, of := range filled {
			from.scramble(t, random, of, rows)
		}
		for range 2 {
			// Given up somewhere in the middle.
			ctx, cancel := context.WithCancel(t.Context())
			m, chunks := newMove(t, from, to), random.IntN(12)
			m.Progress = func(sqlstore.MoveProgress) {
				if chunks--; chunks < 0 {
					cancel()
				}
			}
			_, err := m.Run(ctx)
			cancel()
			if err == nil {
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			usable(t, from)
			refuses(t, to, "not finished")
			for _, of := range filled {
				from.scramble(t, random, of, 40)
				to.scramble(t, random, of, 40)
			}
		}
		var want [][]string
		for _, of := range filled {
			want = append(want, from.dump(t, of))
		}
		m := newMove(t, from, to)
		report, err := m.Run(t.Context())
		if err != nil {
			if state, _ := from.store(from.db).MoveState(t.Context()); state.MovedAt.IsZero() {
				t.Fatal(err)
			}
		}
		for i, of := range filled {
			got := to.dump(t, of)
			if strings.Join(got, "\n") != strings.Join(want[i], "\n") {
				t.Errorf("table %s differs: %d rows, want %d", of.table, len(got), len(want[i]))
			}
		}
		t.Logf("%d passes, %d rows, fence %s, took %s", report.Passes, report.Changed, report.Fenced, report.Took)
		refuses(t, from, "everything was moved to "+to.name)
		usable(t, to)
	})
}

func usable(t *testing.T, s side) {
	t.Helper()
	store := s.store(s.db)
	defer store.Close()
	if err := store.Open(t.Context()); err != nil {
		t.Errorf("%s: %v", s.name, err)
	}
	if _, err := store.Sessions().Insert(t.Context(), session("somebody")); err != nil {
		t.Errorf("%s: %v", s.name, err)
	}
}

func refuses(t *testing.T, s side, want string) {
	t.Helper()
	store := s.store(s.db)
	defer store.Close()
	err := store.Open(t.Context())
	if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, counterfoil.ErrStoreMoved) || !errors.Is(err, counterfoil.ErrStoreUnavailable) {
		t.Errorf("%s: opening it says %v, want %q", s.name, err, want)
	}
}
