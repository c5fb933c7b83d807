package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
)

// runner runs SQL on a pool, a connection or a transaction. Queries name
// tables in braces and parameters as $1, $2, …; see [dialect.compile].
type runner interface {
	exec(ctx context.Context, query string, args ...any) (int64, error)
	query(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// row reads the columns of one row from left to right. Values come as the
// driver gives them: both dialects give int64, string, []byte or nil, and
// PostgreSQL bool.
type row struct {
	values []any
	next   int
	err    error
}

func (r *row) take() any {
	if r.next == len(r.values) {
		r.err = errors.New("a column is missing")
		return nil
	}
	v := r.values[r.next]
	r.next++
	return v
}

func (r *row) wrong(v any, want string) {
	if v != nil && r.err == nil {
		r.err = fmt.Errorf("column %d is %T, want %s", r.next, v, want)
	}
}

func (r *row) null() bool { return r.next < len(r.values) && r.values[r.next] == nil }

func (r *row) skip(n int) { r.next += n }

func (r *row) int() int64 {
	v := r.take()
	n, ok := v.(int64)
	if !ok {
		r.wrong(v, "an integer")
	}
	return n
}

func (r *row) bool() bool {
	switch v := r.take().(type) {
	case bool:
		return v
	case int64:
		return v != 0
	default:
		r.wrong(v, "a boolean")
		return false
	}
}

func (r *row) text() string {
	switch v := r.take().(type) {
	case string:
		return v
	case []byte:
		return string(v)
	default:
		r.wrong(v, "a text")
		return ""
	}
}

func (r *row) bytes() []byte {
	v := r.take()
	b, ok := v.([]byte)
	if !ok {
		r.wrong(v, "bytes")
	}
	return b
}

func (r *row) hash() (h opaque.Hash) {
	if b := r.bytes(); b != nil && copy(h[:], b) != len(h) {
		r.err = fmt.Errorf("column %d is no hash", r.next)
	}
	return h
}

func (r *row) millis() time.Duration { return time.Duration(r.int()) * time.Millisecond }

// time reads Unix milliseconds; NULL is the zero time.
func (r *row) time() time.Time {
	if r.null() {
		r.next++
		return time.Time{}
	}
	return fromMillis(r.int())
}

// json reads an encoded list or object into dst; NULL leaves dst alone.
// Numbers keep all their digits.
func (r *row) json(dst any) {
	text := r.text()
	if text == "" || r.err != nil {
		return
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	if err := d.Decode(dst); err != nil {
		r.err = fmt.Errorf("column %d: %w", r.next, err)
	}
}

// each runs a query and gives its rows to fn.
func each(ctx context.Context, on runner, fn func(*row) error, query string, args ...any) (err error) {
	if p, ok := on.(prompt); ok {
		limited, cancel := p.limit(ctx)
		defer cancel()
		defer func() { err = cause(limited, err) }()
		ctx = limited
	}
	rows, err := on.query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // the way out of errors; the good one checks
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	r := row{values: make([]any, len(columns))}
	into := make([]any, len(columns))
	for i := range into {
		into[i] = &r.values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		r.next = 0
		if err := fn(&r); err != nil {
			return err
		}
		if r.err != nil {
			return r.err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return rows.Close()
}

// one runs a query and gives its only row to fn; found is false when there is none.
func one(ctx context.Context, on runner, fn func(*row), query string, args ...any) (found bool, err error) {
	err = each(ctx, on, func(r *row) error {
		found = true
		fn(r)
		return nil
	}, query, args...)
	return found, err
}

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// millisOrNull is for times that may be absent.
func millisOrNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

func textOrNull[T ~string](s T) any {
	if s == "" {
		return nil
	}
	return string(s)
}

func hashOrNull(h opaque.Hash) any {
	if h == (opaque.Hash{}) {
		return nil
	}
	return h[:]
}

func listOrNull(list []string) (any, error) {
	if list == nil {
		return nil, nil
	}
	return encode(list)
}

func objectOrNull(m map[string]any) (any, error) {
	if m == nil {
		return nil, nil
	}
	return encode(m)
}

func encode(v any) (any, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// Columns of a session s and its subject u, in the order that readSession
// and readSubject take them.
const (
	sessionColumns = `s.sid, s.client_id, s.parent_sid, s.created_at, s.last_active_at, s.idle_ms, s.expires_at, s.auth_time, ` +
		`s.epoch0, s.secret_hash, s.amr, s.user_agent, s.ip, s.roles, s.scope, s.extra, s.binding, s.ended_at, s.end_reason, s.end_actor, s.rev, s.derived`
	subjectColumns = `u.no, u.id, u.epoch, u.signed_out_below, u.signed_out_at, u.signed_out_reason, u.signed_out_actor, u.roles, u.scope, u.disabled`
)

// keptColumns are sessionColumns where the dialect wants no table before them.
var keptColumns = strings.ReplaceAll(sessionColumns, "s.", "")

// session is a row of the sessions table.
type session struct {
	counterfoil.Session       // without Subject; End is the row's own
	rev                 int64 // for compare and swap
	derived             bool  // other sessions have it as parent
}

func readSession(r *row) (s session) {
	s.ID = r.text()
	s.ClientID = r.text()
	s.ParentID = r.text()
	s.CreatedAt = r.time()
	s.LastActiveAt = r.time()
	s.IdleTimeout = time.Duration(r.int()) * time.Millisecond
	s.ExpiresAt = r.time()
	if s.AuthTime = s.CreatedAt; r.null() {
		r.skip(1)
	} else {
		s.AuthTime = r.time()
	}
	s.Epoch0 = r.int()
	s.SecretHash = r.hash()
	r.json(&s.Methods)
	s.Device.UserAgent = r.text()
	s.Device.IP = r.text()
	r.json(&s.Roles)
	r.json(&s.Scope)
	r.json(&s.Extra)
	s.Binding = readBinding(r)
	s.End = readEnd(r)
	s.rev = r.int()
	s.derived = r.bool()
	return s
}

func readEnd(r *row) *counterfoil.End {
	if r.null() {
		r.skip(3)
		return nil
	}
	return &counterfoil.End{At: r.time(), Reason: counterfoil.Reason(r.text()), Actor: r.text()}
}

// subject is a row of the subjects table; no is 0 when there is none.
type subject struct {
	counterfoil.Subject
	no int64
}

func readSubject(r *row) (u subject) {
	u.no = r.int()
	u.ID = r.text()
	u.Epoch = r.int()
	u.SignedOutBelow = r.int()
	u.SignedOut = readEnd(r)
	u.Rights = readRights(r)
	return u
}

func readRights(r *row) (g counterfoil.Rights) {
	r.json(&g.Roles)
	r.json(&g.Scope)
	g.Disabled = r.bool()
	return g
}

// of completes a session with its subject: whose it is and whether it ended
// with all others.
func (s session) of(u *subject) counterfoil.Session {
	s.Subject = u.ID
	s.End = u.EndOf(&s.Session)
	return s.Session
}

// sessionValues is what a session's row is written from, in the order of
// changeableColumns.
const changeableColumns = `last_active_at, idle_ms, expires_at, auth_time, epoch0, secret_hash, amr, user_agent, ip, roles, scope, extra, binding`

const epoch0Value = 4 // its place among them

func sessionValues(s *counterfoil.Session) ([]any, error) {
	amr, err := listOrNull(s.Methods)
	if err != nil {
		return nil, err
	}
	roles, err := listOrNull(s.Roles)
	if err != nil {
		return nil, err
	}
	scope, err := listOrNull(s.Scope)
	if err != nil {
		return nil, err
	}
	extra, err := objectOrNull(s.Extra)
	if err != nil {
		return nil, fmt.Errorf("field Extra: %w", err)
	}
	var authTime any
	if !s.AuthTime.Equal(s.CreatedAt) {
		authTime = s.AuthTime.UnixMilli()
	}
	return []any{s.LastActiveAt.UnixMilli(), s.IdleTimeout.Milliseconds(), s.ExpiresAt.UnixMilli(), authTime,
		s.Epoch0, s.SecretHash[:], amr, textOrNull(s.Device.UserAgent), textOrNull(s.Device.IP), roles, scope, extra, bindingOrNull(s.Binding)}, nil
}

// copied is s with lists and objects as they will be read from the values:
// it shares no memory with what the caller gave.
func copied(s counterfoil.Session, values []any) (counterfoil.Session, error) {
	s.Methods, s.Roles, s.Scope, s.Extra = nil, nil, nil, nil
	r := row{values: values, next: epoch0Value + 2}
	r.json(&s.Methods)
	r.skip(2)
	r.json(&s.Roles)
	r.json(&s.Scope)
	r.json(&s.Extra)
	s.Binding = readBinding(&r)
	return s, r.err
}

// rounded is s as it comes back from the database.
func rounded(s counterfoil.Session) counterfoil.Session {
	for _, t := range []*time.Time{&s.CreatedAt, &s.LastActiveAt, &s.ExpiresAt, &s.AuthTime} {
		*t = fromMillis(t.UnixMilli())
	}
	s.IdleTimeout = s.IdleTimeout.Truncate(time.Millisecond)
	return s
}
