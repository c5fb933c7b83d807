package sqlstore

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// Cursors name the last row of a page; the letter keeps those of one list
// from being taken by another.
const (
	sessionCursor = 's'
	userCursor    = 'u'
)

func makeCursor(kind byte, key string) string {
	return base64.RawURLEncoding.EncodeToString(append([]byte{kind}, key...))
}

func readCursor(kind byte, cursor string) (key string, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(raw) < 2 || raw[0] != kind {
		return "", counterfoil.ErrInvalidCursor
	}
	return string(raw[1:]), nil
}

func checkLimit(limit int) error {
	if limit < 1 || limit > 1000 {
		return fmt.Errorf("limit %d: want 1 to 1000", limit)
	}
	return nil
}

func (s *sessions) List(ctx context.Context, q counterfoil.ListQuery) ([]counterfoil.Session, string, error) {
	list, next, err := s.list(ctx, q)
	if err != nil {
		return nil, "", failed("list sessions", err)
	}
	return list, next, nil
}

func (s *sessions) list(ctx context.Context, q counterfoil.ListQuery) (list []counterfoil.Session, next string, err error) {
	if err := checkLimit(q.Limit); err != nil {
		return nil, "", err
	}
	var where []string
	var args []any
	param := func(v any) string {
		args = append(args, v)
		return "$" + strconv.Itoa(len(args))
	}
	if q.Subject != "" {
		where = append(where, `u.id = `+param(q.Subject))
	}
	if q.ClientID != "" {
		where = append(where, `s.client_id = `+param(q.ClientID))
	}
	if !q.ActiveAt.IsZero() {
		at := param(q.ActiveAt.UnixMilli())
		where = append(where, `s.ended_at IS NULL AND s.epoch0 >= u.signed_out_below AND s.expires_at > `+at+` AND s.last_active_at + s.idle_ms > `+at)
	}
	if q.After != "" {
		createdAt, id, err := readSessionCursor(q.After)
		if err != nil {
			return nil, "", err
		}
		where = append(where, `(s.created_at, s.sid) < (`+param(createdAt)+`, `+param(id)+`)`)
	}
	query := `SELECT ` + sessionColumns + `, ` + subjectColumns + ` FROM {sessions} s JOIN {subjects} u ON u.no = s.subject_no`
	if len(where) > 0 {
		query += ` WHERE ` + strings.Join(where, ` AND `)
	}
	query += ` ORDER BY s.created_at DESC, s.sid DESC LIMIT ` + param(q.Limit+1)
	err = s.in.view(ctx, func(on runner) error {
		list = nil
		return each(ctx, on, func(r *row) error {
			own := readSession(r)
			sub := readSubject(r)
			list = append(list, own.of(&sub))
			return nil
		}, query, args...)
	})
	if err == nil && len(list) > q.Limit {
		list = list[:q.Limit]
		last := list[q.Limit-1]
		next = makeCursor(sessionCursor, strconv.FormatInt(last.CreatedAt.UnixMilli(), 10)+" "+last.ID)
	}
	return list, next, err
}

func readSessionCursor(cursor string) (createdAt int64, id string, err error) {
	key, err := readCursor(sessionCursor, cursor)
	if err != nil {
		return 0, "", err
	}
	at, id, ok := strings.Cut(key, " ")
	createdAt, err = strconv.ParseInt(at, 10, 64)
	if err != nil || !ok || id == "" {
		return 0, "", counterfoil.ErrInvalidCursor
	}
	return createdAt, id, nil
}
