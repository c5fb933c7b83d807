package sqlstore

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// copy makes passes until little differs, and switches the source.
func (m *Move) copy(ctx context.Context) error {
	tries := 0
	for before := int64(-1); ; {
		began := time.Now()
		changed, err := m.pass(ctx, MoveCopying, nil)
		if err != nil {
			return err
		}
		took := time.Since(began)
		// The fenced pass reads as much as this one. Where writes never
		// rest, the differences stop shrinking: they are what comes in a pass.
		few := changed <= moveFew || before >= 0 && changed >= before/2
		before = changed
		if !few {
			continue
		}
		if took > m.FenceAtMost {
			if changed > moveFew {
				continue // it wrote much: the next one tells how long reading takes
			}
			return m.tooLong(took)
		}
		done, err := m.fenced(ctx)
		if done || err != nil {
			return err
		}
		if tries++; tries == moveTries {
			return m.tooLong(time.Since(began))
		}
	}
}

func (m *Move) tooLong(took time.Duration) error {
	return fmt.Errorf("the last pass takes longer than the fence may stand (%s): nothing was switched, and writes are allowed; allow %s, or move at a quieter time",
		m.FenceAtMost, max(2*took, 2*m.FenceAtMost).Round(time.Second))
}

// pass compares all tables and copies what differs. With digests, writes are
// refused: then it goes on with a table until nothing differs, and sums it up.
func (m *Move) pass(ctx context.Context, phase MovePhase, digests []*digest) (changed int64, err error) {
	m.report.Passes++
	p := MoveProgress{Phase: phase}
	totals := make([]int64, len(m.tables))
	for i, t := range m.tables {
		err := m.from.engine.view(ctx, func(on runner) error {
			_, err := one(ctx, on, func(r *row) { totals[i] = r.int() }, `SELECT count(*) FROM {`+t.name+`}`)
			return err
		})
		if err != nil {
			return changed, err
		}
		p.All += totals[i]
	}
	for i, t := range m.tables {
		p.Table, p.Total = t.name, totals[i]
		for {
			p.Rows = 0
			var sum *digest
			if digests != nil {
				sum = newDigest()
			}
			astray, err := m.passTable(ctx, t, &p, sum)
			if err != nil {
				return p.Changed, err
			}
			if digests == nil || !astray {
				if digests != nil {
					digests[i] = sum
				}
				break
			}
		}
		p.Done += totals[i]
	}
	return p.Changed, nil
}

// passTable compares one table. With sum, each chunk that was changed is read
// again and has to be equal: what is summed up is what the target holds.
func (m *Move) passTable(ctx context.Context, t *tableCopy, p *MoveProgress, sum *digest) (astray bool, err error) {
	done := p.Done
	defer func() { p.Done = done }()
	var after any
	for again := 0; ; {
		c, err := m.readChunk(ctx, t, after)
		if err != nil {
			return astray, err
		}
		d := c.compare()
		if d.size() > 0 {
			off, err := m.apply(ctx, t, d)
			if err != nil {
				return astray, err
			}
			astray = astray || off
			p.Changed += int64(d.size())
			m.report.Changed += int64(d.size())
			if sum != nil {
				if again++; again > 2 {
					return astray, fmt.Errorf("table %s: %w", t.name, errDiffers)
				}
				continue
			}
		}
		again = 0
		if sum != nil {
			for _, rec := range c.to {
				sum.add(rec)
			}
		}
		p.Rows += int64(len(c.from))
		p.Done = done + min(p.Rows, p.Total)
		m.tell(*p)
		if c.last {
			return astray, nil
		}
		after = c.next
	}
}

// fenced refuses writes on the source for the last pass, and switches. When
// the pass takes too long, or the fence was lifted by somebody else, writes
// are allowed again, and done is false without an error.
func (m *Move) fenced(ctx context.Context) (done bool, err error) {
	if err := m.raise(ctx); err != nil {
		return false, err
	}
	began := time.Now()
	m.report.Fences++
	m.tell(MoveProgress{Phase: MoveFenced})
	within, cancel := context.WithDeadlineCause(ctx, began.Add(m.FenceAtMost), errFenceTime)
	alive := make(chan struct{})
	go func() { // ends with within
		defer close(alive)
		m.stayAlive(within, cancel)
	}()
	err = m.settle(within)
	late := errors.Is(context.Cause(within), errFenceTime)
	cancel()
	<-alive
	if err == nil {
		err = m.switchSource(ctx)
	}
	m.report.Fenced += time.Since(began)
	if err == nil {
		return true, nil
	}
	// Whatever happened: either it is switched, or writes are allowed.
	undo, end := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
	defer end()
	switched, undoing := m.lift(undo)
	switch {
	case undoing != nil:
		return false, fmt.Errorf("%w; and whether %s was switched is not known (run the move again, or counterfoil move --abort): %w", err, m.Source, undoing)
	case switched:
		return true, nil
	case (late || errors.Is(err, errFenceGone)) && ctx.Err() == nil:
		return false, nil
	}
	return false, err
}

var errFenceTime = errors.New("the fence stood as long as it may")

// raise puts the fence up, and says whose it is.
func (m *Move) raise(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fenceWithin)
	defer cancel()
	return m.from.unhurried(ctx, func() error {
		return m.from.engine.tx(ctx, func(on runner) error {
			state, err := readMove(ctx, on)
			if err != nil {
				return err
			}
			if state.Role != "" {
				return errTakenOver
			}
			if err := m.from.raiseFence(ctx, on); err != nil {
				return err
			}
			now, err := m.from.moveClock(ctx, on)
			if err != nil {
				return err
			}
			_, err = on.exec(ctx, `INSERT INTO {moves} (id, run, role, source, target, alive_at, fenced_at) VALUES (1, $1, 'source', $2, $3, $4, $4)`,
				m.run, m.Source, m.Target, now.UnixMilli())
			return err
		})
	})
}

// stayAlive says that the fence is looked after, until ctx ends.
func (m *Move) stayAlive(ctx context.Context, stop func()) {
	tick := time.NewTicker(moveAlive)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := m.onSource(ctx, func(runner) error { return nil })
		if errors.Is(err, errFenceGone) {
			stop()
			return
		}
	}
}

// onSource runs fn in a transaction of the source, while the fence is ours.
func (m *Move) onSource(ctx context.Context, fn func(runner) error) error {
	return m.from.engine.tx(ctx, func(on runner) error {
		now, err := m.from.moveClock(ctx, on)
		if err != nil {
			return err
		}
		n, err := on.exec(ctx, `UPDATE {moves} SET alive_at = $2 WHERE id = 1 AND role = 'source' AND moved_at IS NULL AND run = $1`, m.run, now.UnixMilli())
		if err != nil {
			return err
		}
		if n != 1 {
			return errFenceGone
		}
		return fn(on)
	})
}

// settle makes both sides equal, proves it, and leaves with the target what
// it needs to be made usable.
func (m *Move) settle(ctx context.Context) error {
	sums := make([]*digest, len(m.tables))
	if _, err := m.pass(ctx, MoveFenced, sums); err != nil {
		return err
	}
	m.report.Tables = nil
	for i, t := range m.tables {
		m.report.Tables = append(m.report.Tables, MovedTable{t.name, sums[i].rows, hex.EncodeToString(sums[i].sum.Sum(nil))})
		for _, side := range []*Store{m.from, m.to} {
			if err := side.holds(ctx, t.name, sums[i].rows); err != nil {
				return err
			}
		}
	}
	meta, floor, err := m.readMeta(ctx)
	if err != nil {
		return err
	}
	return m.onTarget(ctx, func(on runner) error {
		if err := m.to.raisePositions(ctx, on, floor); err != nil {
			return err
		}
		_, err := on.exec(ctx, `UPDATE {moves} SET meta = $1 WHERE id = 1`, meta)
		return err
	})
}

// holds asks the database itself for the number of rows.
func (s *Store) holds(ctx context.Context, table string, want int64) error {
	var rows int64
	err := s.engine.view(ctx, func(on runner) error {
		_, err := one(ctx, on, func(r *row) { rows = r.int() }, `SELECT count(*) FROM {`+table+`}`)
		return err
	})
	if err == nil && rows != want {
		err = fmt.Errorf("table %s: %w: %d rows, and %d were compared", table, errDiffers, rows, want)
	}
	return err
}

// readMeta reads the one row of table meta as JSON, and the highest position given.
func (m *Move) readMeta(ctx context.Context) (text string, floor int64, err error) {
	values := map[string]int64{}
	err = m.from.engine.view(ctx, func(on runner) error {
		found, err := one(ctx, on, func(r *row) {
			floor = r.int()
			for _, name := range m.meta {
				values[name] = r.int()
			}
		}, `SELECT {floor}, `+strings.Join(m.meta, ", ")+` FROM {meta}`)
		if err == nil && !found {
			err = errNoMeta
		}
		return err
	})
	if err != nil {
		return "", 0, err
	}
	encoded, err := json.Marshal(values)
	return string(encoded), floor, err
}

// raisePositions keeps numbers that were given on the other side from being
// given here.
func (s *Store) raisePositions(ctx context.Context, on runner, floor int64) error {
	if s.dialect == sqlite {
		n, err := on.exec(ctx, `UPDATE sqlite_sequence SET seq = max(seq, $1) WHERE name = '{feed}'`, floor)
		if err == nil && n == 0 {
			_, err = on.exec(ctx, `INSERT INTO sqlite_sequence (name, seq) VALUES ('{feed}', $1)`, floor)
		}
		return err
	}
	// Never set back: a position is never given twice.
	none := func(*row) error { return nil }
	if err := each(ctx, on, none, `SELECT setval('{feed_position}', $1::bigint) WHERE $1::bigint > {floor}`, floor); err != nil {
		return err
	}
	return each(ctx, on, none, `SELECT setval(pg_get_serial_sequence('{subjects}', 'no'), max(no)) FROM {subjects} HAVING count(*) > 0`)
}

// switchSource is the one moment: from its commit on nobody mints from the
// source, and the fence stays for ever.
func (m *Move) switchSource(ctx context.Context) error {
	return m.from.unhurried(ctx, func() error {
		return m.onSource(ctx, func(on runner) error {
			now, err := m.from.moveClock(ctx, on)
			if err != nil {
				return err
			}
			if _, err := on.exec(ctx, `UPDATE {moves} SET moved_at = $1 WHERE id = 1`, now.UnixMilli()); err != nil {
				return err
			}
			return m.from.deleteMeta(ctx, on)
		})
	})
}

// lift takes our fence down unless the source was switched.
func (m *Move) lift(ctx context.Context) (switched bool, err error) {
	for {
		err = m.onSource(ctx, func(on runner) error { return m.from.liftFence(ctx, on) })
		var state MoveState
		if err == nil || errors.Is(err, errFenceGone) {
			if state, err = m.from.MoveState(ctx); err == nil {
				return state.run == m.run && !state.MovedAt.IsZero(), nil
			}
		}
		if !m.wait(ctx) {
			return false, err
		}
	}
}

// wait pauses before another try; false: it is over.
func (m *Move) wait(ctx context.Context) bool {
	pause := time.NewTimer(100 * time.Millisecond)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-pause.C:
		return true
	}
}

// enable makes the target usable. It goes on when the caller has given up:
// until it is done, nobody serves.
func (m *Move) enable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
	defer cancel()
	for {
		err := m.onTarget(ctx, func(on runner) error {
			state, err := readMove(ctx, on)
			if err != nil {
				return err
			}
			values := map[string]int64{}
			if err := json.Unmarshal([]byte(state.meta), &values); err != nil {
				return fmt.Errorf("table moves: %w", err)
			}
			names, places, args := make([]string, 0, len(values)), make([]string, 0, len(values)), make([]any, 0, len(values))
			for name, value := range values {
				names, args = append(names, name), append(args, value)
				places = append(places, "$"+strconv.Itoa(len(args)))
			}
			if _, err := on.exec(ctx, `INSERT INTO {meta} (`+strings.Join(names, ", ")+`) VALUES (`+strings.Join(places, ", ")+`)`, args...); err != nil {
				return err
			}
			_, err = on.exec(ctx, `DELETE FROM {moves} WHERE id = 1`)
			return err
		})
		if err == nil {
			return nil
		}
		// A lost answer: it may be done.
		if state, stateErr := m.to.MoveState(ctx); stateErr == nil && state.Role == "" {
			return nil
		}
		if !m.wait(ctx) {
			return err
		}
	}
}
