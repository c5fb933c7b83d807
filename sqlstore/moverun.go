package sqlstore

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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
		if m.Sessions != nil {
			return fmt.Errorf("%w; and %w", m.tooLong(time.Since(began)), errSessionsUsed)
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
	if err := m.bringSessions(ctx); err != nil {
		return err
	}
	rest, err := m.readRest(ctx)
	if err != nil {
		return err
	}
	if m.Sessions != nil {
		rest.Meta["sessions_in"], rest.Meta["journal_from"] = m.home, 0
	}
	return m.onTarget(ctx, func(on runner) error {
		for _, t := range m.tables {
			if !t.numbered {
				continue
			}
			if err := m.to.raiseNumbers(ctx, on, t.movedTable, rest.Numbers[t.name]); err != nil {
				return err
			}
		}
		text, err := json.Marshal(rest.Meta)
		if err != nil {
			return err
		}
		_, err = on.exec(ctx, `UPDATE {moves} SET meta = $1 WHERE id = 1`, string(text))
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
