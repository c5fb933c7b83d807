package sqlstore

import (
	"cmp"
	"slices"
)

// gap is a run of positions of which none was seen yet. Whoever drew one of
// them has a transaction number below over.
type gap struct{ low, high, over int64 }

// gaps remembers them, lowest first, in bounded memory: when there are too
// many, neighbours become one that covers what was seen between them. That is
// then read again, and told again.
type gaps struct {
	list  []gap
	most  int   // gaps remembered at most
	asked int   // gaps asked for in one read at most
	turn  int64 // where the next turn of asking for old ones begins
}

// resolved is the position up to which nothing is missing, given the highest
// position that was looked at.
func (g *gaps) resolved(highest int64) int64 {
	if len(g.list) > 0 {
		return g.list[0].low - 1
	}
	return highest
}

// add notes a gap above all others.
func (g *gaps) add(low, high, over int64) {
	if low > high {
		return
	}
	g.list = append(g.list, gap{low, high, over})
	g.bound()
}

// bound joins neighbours in the older half, which are those least likely to
// be filled.
func (g *gaps) bound() {
	for len(g.list) > g.most {
		half := max(2, len(g.list)/2)
		joined := g.list[:0]
		for i := 0; i < half; i += 2 {
			one, next := g.list[i], g.list[min(i+1, half-1)]
			joined = append(joined, gap{one.low, next.high, max(one.over, next.over)})
		}
		g.list = append(joined, g.list[half:]...)
	}
}

// ask returns which to look for in the next read, lowest first: all, or the
// youngest, where transactions are still open most often, and some of the
// others in turn.
func (g *gaps) ask() []gap {
	if len(g.list) <= g.asked {
		return slices.Clone(g.list)
	}
	old := g.list[:len(g.list)-g.asked/2]
	from, _ := slices.BinarySearchFunc(old, g.turn, func(x gap, turn int64) int { return cmp.Compare(x.low, turn) })
	if from == len(old) {
		from = 0
	}
	to := min(from+g.asked/2, len(old))
	g.turn = old[to-1].high + 1
	return slices.Concat(old[from:to], g.list[len(old):])
}

// answer is what a read found in one gap that was asked for.
type answer struct {
	gap
	found []int64 // rising
	upTo  int64   // what is above was not looked at
}

// settle takes the answers for all that ask returned, in its order. oldest is
// the number of the oldest transaction that was open in the snapshot of that
// read: what is missing there, and was drawn by an older one, was rolled back.
func (g *gaps) settle(answers []answer, oldest int64) {
	if len(answers) == 0 {
		return
	}
	left := make([]gap, 0, len(g.list)+1)
	for _, x := range g.list {
		if len(answers) == 0 || answers[0].gap != x {
			left = append(left, x)
			continue
		}
		a := answers[0]
		answers = answers[1:]
		low := x.low
		keep := func(high int64) {
			if low <= high && x.over > oldest {
				left = append(left, gap{low, high, x.over})
			}
		}
		for _, position := range a.found {
			keep(position - 1)
			low = position + 1
		}
		if keep(min(x.high, a.upTo)); a.upTo < x.high {
			left = append(left, gap{a.upTo + 1, x.high, x.over})
		}
	}
	g.list = left
	g.bound()
}
