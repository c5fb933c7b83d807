package sqlstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// moveChunk is how many rows one read takes: short, so that SQLite's log can
// be written back meanwhile, and nobody waits for a lock.
const moveChunk = 2000

// chunk is the same stretch of a table on both sides.
type chunk struct {
	from, to []record
	next     any // the last key of it
	last     bool
}

// readChunk reads what comes after a key on both sides; nil: from the beginning.
func (m *Move) readChunk(ctx context.Context, t *tableCopy, after any) (c chunk, err error) {
	var failedTo error
	var reading sync.WaitGroup
	reading.Go(func() { c.to, failedTo = m.to.readRecords(ctx, t.name, t.to, after) })
	c.from, err = m.from.readRecords(ctx, t.name, t.from, after)
	reading.Wait()
	if err != nil {
		return c, fmt.Errorf("read table %s of %s: %w", t.name, m.Source, err)
	}
	if failedTo != nil {
		return c, fmt.Errorf("read table %s of %s: %w", t.name, m.Target, failedTo)
	}
	c.last = true
	for _, side := range [][]record{c.from, c.to} {
		if len(side) < moveChunk {
			continue
		}
		if end := side[len(side)-1][0]; c.last || compareKeys(end, c.next) < 0 {
			c.next, c.last = end, false
		}
	}
	if !c.last {
		c.from, c.to = until(c.from, c.next), until(c.to, c.next)
	}
	return c, nil
}

// until returns the records up to a key.
func until(list []record, key any) []record {
	for i, rec := range list {
		if compareKeys(rec[0], key) > 0 {
			return list[:i]
		}
	}
	return list
}

func quoted(columns []column) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = `"` + c.name + `"`
	}
	return strings.Join(names, ", ")
}

func (s *Store) readRecords(ctx context.Context, table string, columns []column, after any) (list []record, err error) {
	key := `"` + columns[0].name + `"`
	query, args := `SELECT `+quoted(columns)+` FROM {`+table+`}`, []any{}
	if after != nil {
		query += ` WHERE ` + key + ` > $1`
		args = append(args, after)
	}
	query += ` ORDER BY ` + key + ` LIMIT ` + strconv.Itoa(moveChunk)
	err = s.engine.view(ctx, func(on runner) error {
		list = nil
		return each(ctx, on, func(r *row) error {
			rec := readRecord(r)
			if err := rec.settle(columns); err != nil {
				return &rowError{table, columns[0].name, rec[0], err}
			}
			if before := after; before != nil || len(list) > 0 {
				if len(list) > 0 {
					before = list[len(list)-1][0]
				}
				if compareKeys(before, rec[0]) >= 0 {
					return &rowError{table, columns[0].name, rec[0], fmt.Errorf("the rows are not in the order of their bytes after %.64q: is the collation another one?", fmt.Sprint(before))}
				}
			}
			list = append(list, rec)
			return nil
		}, query, args...)
	})
	return list, err
}

// difference is what makes one side of a chunk like the other.
type difference struct {
	put  []record // to be added, or to take the place of one with the same key
	drop []any    // keys
}

func (d *difference) size() int { return len(d.put) + len(d.drop) }

// compare finds what has to be done to the new side.
func (c *chunk) compare() (d difference) {
	from, to := c.from, c.to
	for len(from) > 0 || len(to) > 0 {
		order := -1
		switch {
		case len(from) == 0:
			order = 1
		case len(to) > 0:
			order = compareKeys(from[0][0], to[0][0])
		}
		switch {
		case order < 0:
			d.put = append(d.put, from[0])
			from = from[1:]
		case order > 0:
			d.drop = append(d.drop, to[0][0])
			to = to[1:]
		default:
			if !from[0].equal(to[0]) {
				d.put = append(d.put, from[0])
			}
			from, to = from[1:], to[1:]
		}
	}
	return d
}

// apply writes a difference to the new side in one transaction. astray says
// that rows with other keys had to go, which held a value that is unique:
// whether they are to stay shows when the table is compared again.
func (m *Move) apply(ctx context.Context, t *tableCopy, d difference) (astray bool, err error) {
	for _, rec := range d.put {
		if err := rec.fits(m.to.dialect, t.to); err != nil {
			return false, &rowError{t.name, t.key, rec[0], err}
		}
	}
	err = m.onTarget(ctx, func(on runner) (err error) {
		if m.to.dialect == postgresql {
			astray, err = putPostgreSQL(ctx, on, t, d)
		} else {
			astray, err = putSQLite(ctx, on, t, d)
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("write table %s of %s: %w", t.name, m.Target, err)
	}
	return astray, err
}

func (t *tableCopy) place(name string) int {
	for i, c := range t.to {
		if c.name == name {
			return i
		}
	}
	return -1 // pairColumns has looked
}

func putSQLite(ctx context.Context, on runner, t *tableCopy, d difference) (astray bool, err error) {
	remove := func(key any) error {
		_, err := on.exec(ctx, `DELETE FROM {`+t.name+`} WHERE "`+t.key+`" = $1`, key)
		return err
	}
	for _, key := range d.drop {
		if err := remove(key); err != nil {
			return astray, err
		}
	}
	values := make([]string, len(t.to))
	for i := range values {
		values[i] = "$" + strconv.Itoa(i+1)
	}
	insert := `INSERT INTO {` + t.name + `} (` + quoted(t.to) + `) VALUES (` + strings.Join(values, ", ") + `)`
	for _, rec := range d.put {
		if err := remove(rec[0]); err != nil {
			return astray, err
		}
		for _, name := range t.unique {
			n, err := on.exec(ctx, `DELETE FROM {`+t.name+`} WHERE "`+name+`" = $1`, rec[t.place(name)])
			if err != nil {
				return astray, err
			}
			astray = astray || n > 0
		}
		if _, err := on.exec(ctx, insert, rec...); err != nil {
			return astray, &rowError{t.name, t.key, rec[0], err}
		}
	}
	return astray, nil
}

func putPostgreSQL(ctx context.Context, on runner, t *tableCopy, d difference) (astray bool, err error) {
	keys := make([]record, 0, d.size())
	for _, key := range d.drop {
		keys = append(keys, record{key})
	}
	keys = append(keys, d.put...)
	list, kind := array(keys, 0, t.to[0].kind)
	if _, err := on.exec(ctx, `DELETE FROM {`+t.name+`} WHERE "`+t.key+`" = ANY ($1::`+kind+`[])`, list); err != nil {
		return false, err
	}
	if len(d.put) == 0 {
		return false, nil
	}
	for _, name := range t.unique {
		at := t.place(name)
		list, kind := array(d.put, at, t.to[at].kind)
		n, err := on.exec(ctx, `DELETE FROM {`+t.name+`} WHERE "`+name+`" = ANY ($1::`+kind+`[])`, list)
		if err != nil {
			return astray, err
		}
		astray = astray || n > 0
	}
	var from, take []string
	var args []any
	for i, c := range t.to {
		list, kind := array(d.put, i, c.kind)
		args = append(args, list)
		from = append(from, "$"+strconv.Itoa(i+1)+"::"+kind+"[]")
		name := "c" + strconv.Itoa(i)
		switch c.kind {
		case truthKind:
			name += " <> 0"
		case smallKind:
			name += "::integer"
		}
		take = append(take, name)
	}
	names := make([]string, len(t.to))
	for i := range names {
		names[i] = "c" + strconv.Itoa(i)
	}
	_, err = on.exec(ctx, `INSERT INTO {`+t.name+`} (`+quoted(t.to)+`) OVERRIDING SYSTEM VALUE SELECT `+strings.Join(take, ", ")+
		` FROM unnest(`+strings.Join(from, ", ")+`) AS x(`+strings.Join(names, ", ")+`)`, args...)
	return astray, err
}

// array is one column of the records as PostgreSQL takes it.
func array(records []record, at int, k kind) (list any, kind string) {
	switch k.plain() {
	case integerKind:
		return typed(records, at, func(v int64) *int64 { return &v }), "bigint"
	case bytesKind:
		return typed(records, at, func(v []byte) []byte { return v }), "bytea"
	}
	return typed(records, at, func(v string) *string { return &v }), "text"
}

// typed leaves the zero value, which is NULL, where there is none.
func typed[V, T any](records []record, at int, of func(V) T) []T {
	list := make([]T, len(records))
	for i, rec := range records {
		if v, ok := rec[at].(V); ok {
			list[i] = of(v)
		}
	}
	return list
}
