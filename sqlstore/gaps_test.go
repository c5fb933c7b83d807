package sqlstore

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// model is a log as PostgreSQL keeps one: positions and transaction numbers
// are drawn in one order, commits come in another.
type model struct {
	*rand.Rand
	nextID, nextXid int64
	open            []*modelTx
	visible         map[int64]bool
}

type modelTx struct {
	xid   int64
	drawn []int64
}

func (m *model) step(foreign bool) {
	switch n := m.IntN(10); {
	case n < 4 || len(m.open) == 0:
		m.open = append(m.open, &modelTx{xid: m.nextXid})
		m.nextXid++
	case n < 7:
		if tx := m.open[m.IntN(len(m.open))]; tx.xid != 0 || !foreign {
			tx.drawn = append(tx.drawn, m.nextID)
			m.nextID++
		}
	default:
		m.over(m.IntN(len(m.open)), m.IntN(3) > 0)
	}
}

func (m *model) over(i int, commit bool) {
	for _, position := range m.open[i].drawn {
		if commit {
			m.visible[position] = true
		}
	}
	m.open = slices.Delete(m.open, i, i+1)
}

func (m *model) oldest() int64 {
	oldest := m.nextXid
	for _, tx := range m.open {
		oldest = min(oldest, tx.xid)
	}
	return oldest
}

// read does what a tail does, in pages of perGap.
func (m *model) read(g *gaps, highest *int64, told map[int64]bool, perGap int) {
	var answers []answer
	for _, x := range g.ask() {
		a := answer{gap: x, upTo: math.MaxInt64}
		for position := x.low; position <= x.high && len(a.found) < perGap; position++ {
			if m.visible[position] {
				a.found = append(a.found, position)
				told[position] = true
			}
		}
		if len(a.found) == perGap {
			a.upTo = a.found[perGap-1]
		}
		answers = append(answers, a)
	}
	g.settle(answers, m.oldest())
	low := *highest + 1
	for position := low; position < m.nextID; position++ {
		if m.visible[position] {
			told[position] = true
			g.add(low, position-1, m.nextXid)
			low = position + 1
		}
	}
	g.add(low, m.nextID-1, m.nextXid)
	*highest = m.nextID - 1
}

// Whatever the order of commits, and however little is remembered, all is told
// by the time that Resolved says so, and nothing is missing in the end.
func TestGapsLoseNothing(t *testing.T) {
	for range 300 {
		seed := rand.Uint64()
		m := &model{Rand: rand.New(rand.NewPCG(seed, 0)), nextID: 1, nextXid: 1, visible: map[int64]bool{}}
		g := &gaps{most: 2 + m.IntN(30), asked: 2 + 2*m.IntN(8)}
		told := map[int64]bool{}
		var highest, resolved int64
		perGap := 1 + m.IntN(4)
		if m.IntN(3) == 0 {
			m.open = append(m.open, &modelTx{}) // a foreign one, as long as the test
		}
		foreign := len(m.open) > 0
		check := func() {
			t.Helper()
			m.read(g, &highest, told, perGap)
			if now := g.resolved(highest); now < resolved {
				t.Fatalf("seed %d: resolved fell from %d to %d", seed, resolved, now)
			} else {
				resolved = now
			}
			if len(g.list) > g.most {
				t.Fatalf("seed %d: %d gaps are remembered, at most %d may be", seed, len(g.list), g.most)
			}
			for i := 1; i < len(g.list); i++ {
				if g.list[i-1].high >= g.list[i].low || g.list[i].low > g.list[i].high {
					t.Fatalf("seed %d: gaps out of order: %v", seed, g.list)
				}
			}
			for position := range m.visible {
				if position <= resolved && !told[position] {
					t.Fatalf("seed %d: %d is resolved and was never told", seed, position)
				}
			}
			for _, tx := range m.open {
				for _, position := range tx.drawn {
					if position <= resolved {
						t.Fatalf("seed %d: %d is resolved and not yet over", seed, position)
					}
				}
			}
		}
		for range 400 {
			m.step(foreign)
			if m.IntN(4) == 0 {
				check()
			}
		}
		for len(m.open) > 0 {
			m.over(0, true)
		}
		for round := 0; resolved < m.nextID-1; round++ {
			if check(); round > 10000 {
				t.Fatalf("seed %d: %d of %d is all that is ever resolved", seed, resolved, m.nextID-1)
			}
		}
	}
}
