package redisstore

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// cascadeRetain is how long entries are kept of sessions that a later look
// ends: as long as any access token lives.
const cascadeRetain = time.Hour + time.Minute

// tell makes facts known to Redis, in order. They may have been told before,
// and by others at the same time.
func (s *Store) tell(ctx context.Context, facts []sqlstore.Fact) error {
	for len(facts) > 0 {
		f := &facts[0]
		if f.End == nil {
			if err := s.tellSubject(ctx, f); err != nil {
				return err
			}
			s.told.add(f.No)
			facts = facts[1:]
			continue
		}
		n := 1
		for n < len(facts) && facts[n].End != nil && *facts[n].End == *f.End {
			n++
		}
		if err := s.tellEnds(ctx, facts[:n]); err != nil {
			return err
		}
		facts = facts[n:]
	}
	return nil
}

// tellEnds ends sessions that ended alike, and those derived from them that
// nobody knew of when SQL ended them.
func (s *Store) tellEnds(ctx context.Context, facts []sqlstore.Fact) error {
	end := *facts[0].End
	known := map[string]bool{}
	ids := make([]string, len(facts))
	for i, f := range facts {
		ids[i], known[f.Ref] = f.Ref, true
	}
	for len(ids) > 0 {
		derived, err := s.finish(ctx, ids, &end)
		if err != nil {
			return err
		}
		family, err := s.members(ctx, derived, known)
		if err != nil {
			return err
		}
		var done sqlstore.Endings
		if len(family) > 0 {
			if done, err = s.journal.End(ctx, family, false, end, cascadeRetain); err != nil {
				return err
			}
		}
		// Not before those derived are in the journal too: else nobody would look
		// for them again.
		for _, f := range facts {
			s.told.add(f.No)
		}
		facts, ids = nil, nil
		for _, f := range done.Facts {
			if f.End != nil {
				facts, ids = append(facts, f), append(ids, f.Ref)
				continue
			}
			if err := s.tellSubject(ctx, &f); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish writes the end into sessions, and returns those derived from them.
func (s *Store) finish(ctx context.Context, ids []string, end *counterfoil.End) (derived []string, err error) {
	by := map[shard][]string{}
	var order []shard // of the first of each: parents come first
	for _, id := range ids {
		at, rest, ok := split(id)
		if !ok {
			continue
		}
		if by[at] == nil {
			order = append(order, at)
		}
		by[at] = append(by[at], rest)
	}
	const most = 200
	for _, at := range order {
		for rest := by[at]; len(rest) > 0; rest = rest[min(most, len(rest)):] {
			args := append([]string{decimal(end.At.UnixMilli()), string(end.Reason), end.Actor}, rest[:min(most, len(rest))]...)
			list, err := s.write(ctx, finishScript, at, args...)
			if err != nil {
				return nil, err
			}
			more, err := texts(list)
			if err != nil {
				return nil, err
			}
			derived = append(derived, more...)
		}
	}
	return derived, nil
}

// members reads those of the sessions that are there and were not seen yet.
func (s *Store) members(ctx context.Context, ids []string, seen map[string]bool) (family []sqlstore.Member, err error) {
	for _, id := range ids {
		if seen[id] {
			continue
		}
		seen[id] = true
		own, err := s.own(ctx, id)
		switch {
		case errors.Is(err, counterfoil.ErrNotFound):
		case err != nil:
			return nil, err
		case own.End == nil || own.endedBelow != 0:
			family = append(family, sqlstore.Member{ID: id, Subject: own.Subject, Epoch0: own.Epoch0})
		}
	}
	return family, nil
}

// own reads a record as it is.
func (s *Store) own(ctx context.Context, id string) (record, error) {
	at, rest, ok := split(id)
	if !ok {
		return record{}, counterfoil.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	data, err := s.client.Do(ctx, s.client.B().Get().Key(s.base(at)+"s:"+rest).Build()).AsBytes()
	switch {
	case rueidis.IsRedisNil(err):
		return record{}, counterfoil.ErrNotFound
	case err != nil:
		return record{}, unavailable(err)
	}
	return readRecord(id, data)
}

// tellSubject brings the copy of a subject up to date, after the session that
// is to go on was raised above the sign-out: it is never seen as ended.
func (s *Store) tellSubject(ctx context.Context, f *sqlstore.Fact) error {
	u := f.Subject
	at := shardOf(u.ID)
	except := ""
	if f.Keep != nil {
		except = f.Keep.ID
		if err := s.raise(ctx, f.Keep, u.Epoch); err != nil {
			return err
		}
	}
	args := []string{u.ID, string(encodeSubject(u))}
	var out []string
	if u.SignedOut != nil && (f.No == 0 || u.SignedOutBelow == u.Epoch) {
		if except != "" {
			except = except[2:]
		}
		out = []string{decimal(u.SignedOutBelow), decimal(u.SignedOut.At.UnixMilli()), string(u.SignedOut.Reason), u.SignedOut.Actor, except}
		args = append(args, out...)
	}
	list, err := s.write(ctx, subjectScript, at, args...)
	if err != nil {
		return err
	}
	left, err := list[0].AsInt64()
	if err != nil || left == 0 {
		return err
	}
	// They have ended by the copy; here each gets its end written down.
	sids, err := s.client.Do(ctx, s.client.B().Zrange().Key(s.base(at)+"z:"+u.ID).Min("0").Max("-1").Build()).AsStrSlice()
	if err != nil {
		return unavailable(err)
	}
	const most = 200
	for ; len(sids) > 0; sids = sids[min(most, len(sids)):] {
		if _, err := s.write(ctx, settleScript, at, append(out[:len(out):len(out)], sids[:min(most, len(sids))]...)...); err != nil {
			return err
		}
	}
	return nil
}

// raise lets a session go on above the sign-out that made the epoch. It is
// done once: what changed the session since then stays.
func (s *Store) raise(ctx context.Context, k *counterfoil.Keep, epoch int64) error {
	at, rest, ok := split(k.ID)
	if !ok {
		return nil
	}
	for {
		own, err := s.own(ctx, k.ID)
		if errors.Is(err, counterfoil.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if own.End != nil && own.endedBelow == 0 || own.Epoch0 >= epoch {
			return nil
		}
		was := own.rev
		own.rev++
		own.Epoch0 = epoch
		if own.endedBelow <= epoch {
			own.End, own.endedBelow = nil, 0
		}
		if k.SecretHash != (opaque.Hash{}) {
			own.SecretHash = k.SecretHash
		}
		if !k.AuthTime.IsZero() {
			own.AuthTime = k.AuthTime
		}
		if k.Methods != nil {
			own.Methods = k.Methods
		}
		status, err := s.swap(ctx, at, rest, was, &own, "", "")
		if err != nil || status != "changed" {
			return err
		}
	}
}

// swap writes a record unless it changed since it was read.
func (s *Store) swap(ctx context.Context, at shard, rest string, was uint32, next *record, below, pending string) (status string, err error) {
	data, err := next.encode()
	if err != nil {
		return "", err
	}
	list, err := s.write(ctx, swapScript, at, rest, strconv.FormatUint(uint64(was), 10), string(data), below, pending)
	return text(list), err
}

// texts reads an answer of texts.
func texts(list []rueidis.RedisMessage) ([]string, error) {
	return words(list, len(list))
}

// told collects the numbers of facts that Redis knows, to be noted together.
type told struct {
	mu  sync.Mutex
	nos []int64
}

func (t *told) add(no int64) {
	if no == 0 {
		return
	}
	t.mu.Lock()
	t.nos = append(t.nos, no)
	t.mu.Unlock()
}

func (t *told) take() []int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	nos := t.nos
	t.nos = nil
	return nos
}

// noteTold notes in SQL what Redis was told.
func (s *Store) noteTold(ctx context.Context) error {
	nos := s.told.take()
	if len(nos) == 0 {
		return nil
	}
	const most = 1000
	for len(nos) > 0 {
		n := min(most, len(nos))
		if err := s.journal.Told(ctx, nos[:n]); err != nil {
			for _, no := range nos {
				s.told.add(no)
			}
			return err
		}
		nos = nos[n:]
	}
	return nil
}

// retell tells what other nodes have left untold.
func (s *Store) retell(ctx context.Context) error {
	const page = 1000
	for after := int64(0); ; {
		facts, err := s.journal.Untold(ctx, after, page)
		if err != nil {
			return err
		}
		full := len(facts) == page
		if full {
			after = facts[len(facts)-1].No
		}
		if err := s.tellOrHold(ctx, facts); err != nil {
			return err
		}
		if !full {
			return s.noteTold(ctx)
		}
	}
}

// tellSince tells what was told since a time once more.
func (s *Store) tellSince(ctx context.Context, since time.Time) error {
	const page = 1000
	for after := int64(0); ; {
		facts, err := s.journal.Since(ctx, since, after, page)
		if err != nil {
			return err
		}
		if err := s.tell(ctx, facts); err != nil {
			return err
		}
		if len(facts) < page {
			return nil
		}
		after = facts[len(facts)-1].No
	}
}

// tellOrHold tells facts. Shards that are being moved cannot be told: they are
// held back, since the log may forget what ended before they are, and are told
// when they are released.
func (s *Store) tellOrHold(ctx context.Context, facts []sqlstore.Fact) error {
	facts = slices.DeleteFunc(facts, func(f sqlstore.Fact) bool { return s.guard.moving(shardOfFact(&f)) })
	err := s.tell(ctx, facts)
	if !errors.Is(err, errMoving) {
		return err
	}
	by := map[shard][]sqlstore.Fact{}
	for _, f := range facts {
		at := shardOfFact(&f)
		by[at] = append(by[at], f)
	}
	for at, facts := range by {
		err := s.tell(ctx, facts)
		if errors.Is(err, errMoving) {
			s.hold(at)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}
