package sqlstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// movedTable is a table whose rows a move copies as they are. key is a column
// that names a row and sorts alike in both dialects; unique are others that
// hold a value once.
type movedTable struct {
	name, key string
	unique    []string
	numbered  bool // the key is drawn from numbers that are never given twice
}

// Table meta is copied when the new side is made usable; tables schema and
// moves are each database's own.
var movedTables = []movedTable{
	{name: "keys", key: "kid"},
	{name: "api_keys", key: "id"},
	{name: "users", key: "id", unique: []string{"email_key"}},
	{name: "subjects", key: "no", unique: []string{"id"}, numbered: true},
	{name: "sessions", key: "sid"},
	{name: "feed", key: "id", numbered: true},
	{name: "throttle", key: "key"},
	{name: "ceremonies", key: "challenge"},
	{name: "journal", key: "no", numbered: true},
}

// ownColumns are about the one database, and are not copied.
var ownColumns = map[dialect][]string{
	sqlite:     {"sessions.no"},
	postgresql: {"meta.wal_timeline", "meta.retain_raised_at"},
}

// oneSided are columns that one dialect alone needs; they are copied where
// both sides have them.
var oneSided = []string{"meta.cut_timeline", "meta.cut_position"}

// kind is what a column holds, the same in both dialects. Booleans are
// integers here.
type kind string

const (
	integerKind kind = "integer"
	smallKind   kind = "small integer" // 32 bits on PostgreSQL
	truthKind   kind = "boolean"       // on PostgreSQL
	textKind    kind = "text"
	bytesKind   kind = "bytes"
)

var kinds = map[string]kind{
	"INTEGER": integerKind, "TEXT": textKind, "BLOB": bytesKind, // SQLite
	"bigint": integerKind, "integer": smallKind, "boolean": truthKind, "text": textKind, "bytea": bytesKind,
}

// column is a column of a table to be copied, as each side declares it.
type column struct {
	name string
	kind kind
}

// columnsOf reads the columns of a table from the database.
func (s *Store) columnsOf(ctx context.Context, on runner, table string) (map[string]kind, error) {
	query := `SELECT name, type FROM pragma_table_info($1)`
	if s.dialect == postgresql {
		query = `SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute
			WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped`
	}
	found := map[string]kind{}
	err := each(ctx, on, func(r *row) error {
		name, declared := r.text(), r.text()
		k, known := kinds[declared]
		if !known {
			return fmt.Errorf("column %s of table %s has the type %s, which a move does not know", name, table, declared)
		}
		if !slices.Contains(ownColumns[s.dialect], table+"."+name) {
			found[name] = k
		}
		return nil
	}, query, s.settings.prefix+table)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("there is no table %s%s", s.settings.prefix, table)
	}
	return found, err
}

// tableCopy is what both sides have of a table, the key first.
type tableCopy struct {
	movedTable
	from, to []column // the same names in the same order
}

// pairColumns compares what the two sides say of a table.
func pairColumns(t movedTable, from, to map[string]kind) (*tableCopy, error) {
	for _, name := range oneSided {
		if table, column, _ := strings.Cut(name, "."); table == t.name && from[column] != to[column] {
			delete(from, column)
			delete(to, column)
		}
	}
	names := slices.Sorted(maps.Keys(from))
	if others := slices.Sorted(maps.Keys(to)); !slices.Equal(names, others) {
		return nil, fmt.Errorf("table %s has the columns %s here and %s there: both sides want the same version",
			t.name, strings.Join(names, ", "), strings.Join(others, ", "))
	}
	slices.SortFunc(names, func(a, b string) int {
		switch {
		case a == b:
			return 0
		case a == t.key:
			return -1
		case b == t.key:
			return 1
		}
		return strings.Compare(a, b)
	})
	c := &tableCopy{movedTable: t}
	for _, name := range names {
		a, b := from[name], to[name]
		if a.plain() != b.plain() {
			return nil, fmt.Errorf("column %s of table %s holds %s here and %s there", name, t.name, a, b)
		}
		c.from, c.to = append(c.from, column{name, a}), append(c.to, column{name, b})
	}
	if len(names) == 0 || names[0] != t.key {
		return nil, fmt.Errorf("table %s has no column %s", t.name, t.key)
	}
	return c, nil
}

// plain is the kind of the values as they are copied.
func (k kind) plain() kind {
	if k == smallKind || k == truthKind {
		return integerKind
	}
	return k
}

// record is a row as it is copied: int64, string, []byte or nil, the key first.
type record []any

func readRecord(r *row) record {
	return slices.Clone(record(r.values))
}

// settle turns what the drivers give into what is compared.
func (rec record) settle(columns []column) error {
	for i, v := range rec {
		k := columns[i].kind.plain()
		switch v := v.(type) {
		case nil:
			continue
		case bool:
			rec[i] = int64(0)
			if v {
				rec[i] = int64(1)
			}
		case []byte:
			switch {
			case k == textKind:
				rec[i] = string(v)
			case v == nil: // how a driver gives an empty one, which is not NULL
				rec[i] = []byte{}
			}
		}
		var good bool
		switch rec[i].(type) {
		case int64:
			good = k == integerKind
		case string:
			good = k == textKind
		case []byte:
			good = k == bytesKind
		}
		if !good {
			return fmt.Errorf("column %s holds %T, want %s", columns[i].name, v, k)
		}
	}
	return nil
}

// fits says why the other side would refuse the row.
func (rec record) fits(to dialect, columns []column) error {
	if to != postgresql {
		return nil
	}
	for i, v := range rec {
		switch v := v.(type) {
		case string:
			if strings.ContainsRune(v, 0) {
				return fmt.Errorf("column %s has a NUL character, which PostgreSQL cannot keep in a text", columns[i].name)
			}
			if !utf8.ValidString(v) {
				return fmt.Errorf("column %s is no UTF-8, which PostgreSQL wants of a text", columns[i].name)
			}
		case int64:
			if columns[i].kind == smallKind && (v < math.MinInt32 || v > math.MaxInt32) {
				return fmt.Errorf("column %s holds %d, which does not fit into PostgreSQL's integer", columns[i].name, v)
			}
			if columns[i].kind == truthKind && v != 0 && v != 1 {
				return fmt.Errorf("column %s holds %d, want 0 or 1", columns[i].name, v)
			}
		}
	}
	return nil
}

func (rec record) equal(other record) bool {
	for i, v := range rec {
		if b, ok := v.([]byte); ok {
			o, ok := other[i].([]byte)
			if !ok || !bytes.Equal(b, o) {
				return false
			}
			continue
		}
		if _, ok := other[i].([]byte); ok || v != other[i] {
			return false
		}
	}
	return true
}

// compareKeys is the order of both databases: numbers by value, texts by bytes.
func compareKeys(a, b any) int {
	switch a := a.(type) {
	case int64:
		if b, ok := b.(int64); ok {
			switch {
			case a < b:
				return -1
			case a > b:
				return 1
			}
			return 0
		}
	case string:
		if b, ok := b.(string); ok {
			return strings.Compare(a, b)
		}
	}
	return -1 // never: settle has looked at both
}

// digest sums up the rows of a table in order.
type digest struct {
	rows int64
	sum  hash.Hash
	buf  []byte
}

func newDigest() *digest { return &digest{sum: sha256.New()} }

func (d *digest) add(rec record) {
	b := d.buf[:0]
	for _, v := range rec {
		switch v := v.(type) {
		case nil:
			b = append(b, 'n')
		case int64:
			b = binary.BigEndian.AppendUint64(append(b, 'i'), uint64(v))
		case string:
			b = append(binary.BigEndian.AppendUint32(append(b, 't'), uint32(len(v))), v...)
		case []byte:
			b = append(binary.BigEndian.AppendUint32(append(b, 'b'), uint32(len(v))), v...)
		}
	}
	d.rows++
	d.buf = b
	d.sum.Write(b) // never fails
}

// rowError names the row that stands in the way.
type rowError struct {
	table, key string
	value      any
	err        error
}

func (e *rowError) Error() string {
	return fmt.Sprintf("table %s, row with %s %.64q: %v", e.table, e.key, fmt.Sprint(e.value), e.err)
}

func (e *rowError) Unwrap() error { return e.err }

var errDiffers = errors.New("the two sides differ after the copy")
