package redisstore

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/counterfoil/counterfoil"
)

// listed is a session of a list with the place from which its shard goes on.
type listed struct {
	counterfoil.Session
	created int64
}

func newestFirst(a, b *listed) int {
	return cmp.Or(cmp.Compare(b.created, a.created), cmp.Compare(b.ID, a.ID))
}

// cursor is where a page ended.
type cursor struct {
	created int64
	id      string
}

func (c *cursor) String() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "s%d %s", c.created, c.id))
}

func readCursor(text string) (*cursor, error) {
	if text == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	at, id, ok := strings.Cut(string(raw), " ")
	if err != nil || !ok || id == "" || !strings.HasPrefix(at, "s") {
		return nil, counterfoil.ErrInvalidCursor
	}
	created, err := strconv.ParseInt(at[1:], 10, 64)
	if err != nil {
		return nil, counterfoil.ErrInvalidCursor
	}
	return &cursor{created, id}, nil
}

func (s sessions) List(ctx context.Context, q counterfoil.ListQuery) ([]counterfoil.Session, string, error) {
	list, next, err := s.list(ctx, q)
	if err != nil {
		return nil, "", failed("list sessions", err)
	}
	return list, next, nil
}

func (s sessions) list(ctx context.Context, q counterfoil.ListQuery) (page []counterfoil.Session, next string, err error) {
	if q.Limit < 1 || q.Limit > 1000 {
		return nil, "", fmt.Errorf("limit %d: want 1 to 1000", q.Limit)
	}
	after, err := readCursor(q.After)
	if err != nil {
		return nil, "", err
	}
	wanted := allShards()
	if q.Subject != "" {
		wanted = []shard{shardOf(q.Subject)}
	}
	if err := s.guard.passFor(ctx, s.Store, wanted...); err != nil {
		return nil, "", err
	}
	streams := []*stream{{store: s.Store, at: shardOf(q.Subject), query: &q, after: after, chunk: q.Limit + 1}}
	if q.Subject == "" {
		streams = streams[:0]
		for _, at := range allShards() {
			// An even share, and some for those that have more than that.
			streams = append(streams, &stream{store: s.Store, at: at, query: &q, after: after, chunk: q.Limit/64 + 2})
		}
		if err := fillAll(ctx, s.Store, streams); err != nil {
			return nil, "", err
		}
	}
	for {
		var first *stream
		for _, c := range streams {
			if err := c.fill(ctx); err != nil {
				return nil, "", err
			}
			if len(c.waiting) > 0 && (first == nil || newestFirst(&c.waiting[0], &first.waiting[0]) < 0) {
				first = c
			}
		}
		switch {
		case first == nil:
			return page, "", nil
		case len(page) == q.Limit:
			last := page[len(page)-1]
			return page, (&cursor{last.CreatedAt.UnixMilli(), last.ID}).String(), nil
		}
		page = append(page, first.waiting[0].Session)
		first.waiting = first.waiting[1:]
	}
}

// fillAll asks all shards at once for the first.
func fillAll(ctx context.Context, s *Store, streams []*stream) error {
	var mu sync.Mutex
	by := map[shard]*stream{}
	for _, c := range streams {
		by[c.at] = c
	}
	return s.eachShard(ctx, allShards(), func(at shard) error {
		mu.Lock()
		c := by[at]
		mu.Unlock()
		return c.fill(ctx)
	})
}

// stream reads the sessions of one shard, newest first.
type stream struct {
	store   *Store
	at      shard
	query   *counterfoil.ListQuery
	after   *cursor
	chunk   int
	waiting []listed
	over    bool
}

// fill reads on until something waits, or there is no more.
func (c *stream) fill(ctx context.Context) error {
	for len(c.waiting) == 0 && !c.over {
		created, last := "", ""
		if c.after != nil {
			created = decimal(c.after.created)
			// Members of a shard are without its name: of the same moment, all of a
			// shard that is before the cursor's come first.
			switch at := string(c.at); {
			case strings.HasPrefix(c.after.id, at):
				last = c.after.id[len(at):]
			case c.after.id > at:
				last = "\xff" // all of them are below
			}
		}
		list, err := c.store.read(ctx, pageScript, c.at, c.query.Subject, strconv.Itoa(c.chunk), created, last)
		if err != nil {
			return err
		}
		if len(list)%3 != 0 {
			return errShape
		}
		c.over = len(list) < 3*c.chunk
		c.chunk = min(2*c.chunk, 1000)
		for parts := range slices.Chunk(list, 3) {
			texts, err := words(parts, 3)
			if err != nil {
				return err
			}
			own, err := readRecord(string(c.at)+texts[0], []byte(texts[1]))
			if err != nil {
				return err
			}
			c.after = &cursor{own.CreatedAt.UnixMilli(), own.ID}
			sub := counterfoil.Subject{ID: own.Subject}
			if texts[2] != "" {
				if sub, err = readSubject(own.Subject, []byte(texts[2])); err != nil {
					return err
				}
			} else if sub, err = c.store.row(ctx, c.at, own.Subject); err != nil {
				return err
			}
			one := own.Session
			one.End = sub.EndOf(&own.Session)
			if c.query.ClientID != "" && one.ClientID != c.query.ClientID ||
				!c.query.ActiveAt.IsZero() && one.Status(c.query.ActiveAt) != counterfoil.StatusActive {
				continue
			}
			c.waiting = append(c.waiting, listed{one, own.CreatedAt.UnixMilli()})
		}
	}
	return nil
}
