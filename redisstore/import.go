package redisstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"time"

	"github.com/redis/rueidis"

	"github.com/counterfoil/counterfoil"
)

// Importer fills a Redis with sessions that were kept elsewhere, without the
// SQL database beside it. A Redis that was not filled to the end, which
// [Importer.Finish] says, is refused by [Store.Open].
type Importer struct{ s *Store }

// OpenImporter connects to a Redis and checks that it may keep sessions.
func OpenImporter(ctx context.Context, option rueidis.ClientOption, options ...Option) (*Importer, error) {
	s := &Store{option: option, settings: settings{prefix: "cf:", keep: time.Hour, log: slog.Default()}}
	for _, o := range options {
		o(&s.settings)
	}
	s.guard.init()
	if err := s.connect(); err != nil {
		return nil, failed("open", err)
	}
	if err := s.checkServers(ctx); err != nil {
		s.client.Close()
		return nil, failed("open", err)
	}
	return &Importer{s}, nil
}

// Home returns the name of this Redis, and makes it where it has none. It
// belongs into column sessions_in of table meta. fresh says that the name was
// made now and that no session is there.
func (i *Importer) Home(ctx context.Context) (home string, fresh bool, err error) {
	home, err = i.s.homeName(ctx)
	if err != nil || home != "" {
		return home, false, err
	}
	err = i.s.eachShard(ctx, allShards(), func(at shard) error {
		n, err := i.s.client.Do(ctx, i.s.client.B().Exists().Key(i.s.base(at)+"t").Build()).AsInt64()
		if err != nil {
			return unavailable(err)
		}
		if n > 0 {
			return errNamelessSessions
		}
		return nil
	})
	if err != nil {
		return "", false, err
	}
	home, err = i.s.setHomeName(ctx, "redis:"+randomName())
	return home, err == nil, err
}

var errNamelessSessions = errors.New("this redis keeps sessions of nobody knows whom: empty it, or use another")

// Import adds sessions as they are: End is the session's own, Epoch0 is kept.
// Those that are there already stay as they are. The subjects' rows are in SQL
// by the time a session is used.
func (i *Importer) Import(ctx context.Context, list []counterfoil.Session) (added int, err error) {
	by := map[shard][]string{}
	far := map[shard][][2]string{}
	for _, one := range list {
		at, rest, ok := split(one.ID)
		if !ok || at != shardOf(one.Subject) {
			return added, failed("import", &counterfoil.FieldError{Field: "ID", Message: "must begin with the shard of the subject"})
		}
		data, err := (&record{Session: rounded(one)}).encode()
		if err != nil {
			return added, failed("import", err)
		}
		parent := ""
		if in, above, ok := split(one.ParentID); ok && in == at {
			parent = above
		} else if ok {
			far[in] = append(far[in], [2]string{above, one.ID})
		}
		by[at] = append(by[at], rest, string(data), parent, one.ID)
	}
	const most = 4 * 100
	for at, args := range by {
		for ; len(args) > 0; args = args[min(most, len(args)):] {
			answer, err := i.s.write(ctx, importScript, at, args[:min(most, len(args))]...)
			if err != nil {
				return added, failed("import", err)
			}
			n, err := answer[0].AsInt64()
			if err != nil {
				return added, failed("import", err)
			}
			added += int(n)
		}
	}
	for at, pairs := range far {
		for _, p := range pairs {
			if err := i.s.client.Do(ctx, i.s.client.B().Sadd().Key(i.s.base(at)+"c:"+p[0]).Member(p[1]).Build()).Error(); err != nil {
				return added, failed("import", unavailable(err))
			}
		}
	}
	return added, nil
}

// Sum is what [Importer.Scan] gives for a session that is there as it is here.
func Sum(one counterfoil.Session) ([sha256.Size]byte, error) {
	data, err := (&record{Session: rounded(one)}).encode()
	return sha256.Sum256(data), err
}

// Scan calls fn for each session there, in no order, one at a time.
func (i *Importer) Scan(ctx context.Context, fn func(sid string, sum [sha256.Size]byte) error) error {
	const page = 500
	for _, at := range allShards() {
		for low := int64(0); ; low += page {
			rests, err := i.s.client.Do(ctx, i.s.client.B().Zrange().Key(i.s.base(at)+"t").
				Min(decimal(low)).Max(decimal(low+page-1)).Build()).AsStrSlice()
			if err != nil {
				return failed("scan", unavailable(err))
			}
			for _, rest := range rests {
				own, err := i.s.own(ctx, string(at)+rest)
				if err != nil {
					return failed("scan", err)
				}
				own.rev = 0
				data, err := own.encode()
				if err != nil {
					return failed("scan", err)
				}
				if err := fn(own.ID, sha256.Sum256(data)); err != nil {
					return err
				}
			}
			if len(rests) < page {
				break
			}
		}
	}
	return nil
}

// Finish says that all sessions are there. It may be said again.
func (i *Importer) Finish(ctx context.Context) error {
	now := time.Now()
	err := i.s.eachShard(ctx, allShards(), func(at shard) error {
		list, err := i.s.read(ctx, verifyScript, at)
		if err != nil {
			return err
		}
		answer, err := words(list, 3)
		if err != nil {
			return err
		}
		return i.s.mark(ctx, at, answer[1], now)
	})
	if err != nil {
		return failed("finish the import", err)
	}
	return nil
}

// Close closes the connections.
func (i *Importer) Close() { i.s.client.Close() }

// Forget takes away all copies of subjects, so that they are read anew from a
// SQL database that was restored. Where all sessions ended with that,
// [Importer.Finish] says that the data are whole as they are.
func (i *Importer) Forget(ctx context.Context) error {
	for address, node := range i.s.client.Nodes() {
		for next := uint64(0); ; {
			page, err := node.Do(ctx, node.B().Scan().Cursor(next).Match(i.s.prefix+"{??}:u:*").Count(1000).Build()).AsScanEntry()
			if err != nil {
				return failed("forget subjects at "+address, unavailable(err))
			}
			for _, key := range page.Elements {
				// By the cluster: a replica tells its keys as well.
				if err := i.s.client.Do(ctx, i.s.client.B().Unlink().Key(key).Build()).Error(); err != nil {
					return failed("forget subjects", unavailable(err))
				}
			}
			if next = page.Cursor; next == 0 {
				break
			}
		}
	}
	return nil
}
