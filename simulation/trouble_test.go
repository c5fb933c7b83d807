package simulation

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// fault is something that goes wrong for a while.
type fault struct {
	name   string
	weight int
	begin  func(w *world, dice *rand.Rand) (mend func())
}

const longestPause = 40 * time.Second

// faults are all that can go wrong. Each choice is made from the dice before
// anything is done, so that a seed always makes the same.
var faults = []fault{
	{"link cut", 6, func(w *world, dice *rand.Rand) func() {
		return w.link(pick(dice, w.hosts()), pick(dice, w.nodes), func(l *way) { l.cut = true })
	}},
	{"link held", 5, func(w *world, dice *rand.Rand) func() {
		return w.link(pick(dice, w.hosts()), pick(dice, w.nodes), func(l *way) { l.held = true })
	}},
	{"link slow", 5, func(w *world, dice *rand.Rand) func() {
		d := time.Duration(dice.Int64N(int64(2 * time.Second)))
		return w.link(pick(dice, w.hosts()), pick(dice, w.nodes), func(l *way) { l.latency = d })
	}},
	{"service cut off", 5, func(w *world, dice *rand.Rand) func() {
		s, held := pick(dice, w.services), dice.IntN(2) == 0
		var mend []func()
		for _, n := range w.nodes {
			mend = append(mend, w.link(s.name, n, func(l *way) { l.held, l.cut = held, !held }))
		}
		return func() {
			for _, m := range mend {
				m()
			}
		}
	}},
	{"store cut", 6, func(w *world, dice *rand.Rand) func() {
		return w.storeOf(pick(dice, w.nodes), func(s *nodeStore) { s.cut = true })
	}},
	{"store slow", 4, func(w *world, dice *rand.Rand) func() {
		d := time.Duration(1 + dice.Int64N(int64(800*time.Millisecond)))
		return w.storeOf(pick(dice, w.nodes), func(s *nodeStore) { s.slow = d })
	}},
	{"store fails", 4, func(w *world, dice *rand.Rand) func() {
		return w.storeOf(pick(dice, w.nodes), func(s *nodeStore) { s.flaky, s.lossy = 0.3, 0.3 })
	}},
	{"node paused in a read", 4, func(w *world, dice *rand.Rand) func() {
		w.pausedRefresh(pick(dice, w.nodes), pick(dice, w.browsers), time.Duration(dice.Int64N(int64(longestPause))))
		return func() {}
	}},
	{"node clock", 4, func(w *world, dice *rand.Rand) func() {
		n := pick(dice, w.nodes)
		d := pick(dice, []time.Duration{time.Hour, -time.Hour, 20 * time.Second, -20 * time.Second, 4 * time.Second, -4 * time.Second})
		// Only what starts anew sees another clock: a clock of Go's that is set
		// while the process runs goes on monotonically, which no test can imitate.
		usual := n.usual
		w.reclock(n, d)
		return func() { w.reclock(n, usual) }
	}},
	{"store clock", 2, func(w *world, dice *rand.Rand) func() {
		w.setStoreClock(pick(dice, []time.Duration{time.Hour, -time.Hour, 8 * time.Second, -8 * time.Second}))
		return func() { w.setStoreClock(0) }
	}},
	{"node crash", 6, func(w *world, dice *rand.Rand) func() {
		n := pick(dice, w.nodes)
		n.crash()
		return func() { w.revive(n) }
	}},
	{"service crash", 5, func(w *world, dice *rand.Rand) func() {
		s := pick(dice, w.services)
		s.stop(dice.IntN(2) == 0)
		return func() { w.restart(s) }
	}},
	{"old JWKS", 4, func(w *world, dice *rand.Rand) func() {
		s := pick(dice, w.services)
		s.set(func(s *service) { s.stale = true })
		return func() { s.set(func(s *service) { s.stale = false }) }
	}},
	{"wrong cursor", 4, func(w *world, dice *rand.Rand) func() {
		s, how := pick(dice, w.services), pick(dice, []string{"drop", "garble", "timeline", "ahead"})
		s.set(func(s *service) { s.cursor = how })
		w.cutOff(s) // so that it comes back with it
		return func() { s.set(func(s *service) { s.cursor = "" }) }
	}},
	{"keys rotate", 4, func(w *world, dice *rand.Rand) func() {
		w.changeKeys(context.Background(), dice, pick(dice, w.nodes), false)
		return func() {}
	}},
	{"key revoked", 4, func(w *world, dice *rand.Rand) func() {
		w.changeKeys(context.Background(), dice, pick(dice, w.nodes), true)
		return func() {}
	}},
	{"back to a backup", 2, func(w *world, dice *rand.Rand) func() {
		return w.goBack(dice.IntN(2) == 0)
	}},
}

// trouble lets things go wrong, some at a time, until the context ends.
func (w *world) trouble(ctx context.Context) {
	dice := rand.New(rand.NewPCG(w.seed, 2))
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	var under sync.WaitGroup
	for range 3 + dice.IntN(2*int(w.length/time.Second)/3) {
		at := time.Duration(dice.Int64N(int64(w.length * 9 / 10)))
		lasts := time.Duration(dice.Int64N(int64(6 * time.Second)))
		if dice.IntN(4) == 0 {
			lasts *= 3
		}
		n := dice.IntN(total)
		var f fault
		for _, f = range faults {
			if n -= f.weight; n < 0 {
				break
			}
		}
		own := rand.New(rand.NewPCG(dice.Uint64(), 3))
		under.Go(func() {
			if sleep(ctx, at) != nil {
				return
			}
			w.note("fault: %s, for %s", f.name, lasts)
			mend := f.begin(w, own)
			_ = sleep(ctx, lasts)
			mend()
			w.note("mended: %s", f.name)
		})
	}
	if w.degraded > 0 {
		under.Go(func() { w.outages(ctx) })
	}
	under.Wait()
}

// outages cut one node off from the store after the other, for degraded minting.
func (w *world) outages(ctx context.Context) {
	dice := rand.New(rand.NewPCG(w.seed, 4))
	for ctx.Err() == nil {
		n, lasts := pick(dice, w.nodes), time.Duration(dice.Int64N(int64(12*time.Second)))
		mend := w.storeOf(n, func(s *nodeStore) { s.cut = true })
		_ = sleep(ctx, lasts)
		mend()
		_ = sleep(ctx, time.Duration(dice.Int64N(int64(4*time.Second))))
	}
}

// hosts are all that call nodes; services count twice.
func (w *world) hosts() (names []string) {
	for _, s := range w.services {
		names = append(names, s.name, s.name)
	}
	for _, b := range w.browsers {
		names = append(names, b.name)
	}
	return append(names, "backend")
}

func (w *world) link(host string, n *node, change func(*way)) func() {
	w.note("link of %s to %s", host, n.name)
	w.net.set(host, n.name, change)
	return func() {
		w.net.set(host, n.name, func(l *way) { l.latency, l.held, l.cut = usualLatency, false, false })
	}
}

func (w *world) storeOf(n *node, change func(*nodeStore)) func() {
	w.note("store of %s", n.name)
	n.faults(change)
	return func() {
		n.faults(func(s *nodeStore) { s.cut, s.slow, s.flaky, s.lossy = false, 0, 0, 0 })
	}
}

func (w *world) setStoreClock(skew time.Duration) {
	w.model.mu.Lock()
	defer w.model.mu.Unlock()
	w.storeSkew.Store(int64(skew))
	w.storeSince = time.Now()
}

// cutOff breaks the connections of a service.
func (w *world) cutOff(s *service) {
	for _, n := range w.nodes {
		w.link(s.name, n, func(l *way) { l.cut = true })()
	}
}

// pausedRefresh is a refresh whose node stands still after it has read the session.
func (w *world) pausedRefresh(n *node, b *browser, d time.Duration) {
	b.mu.Lock()
	jar, s := b.jar, b.session
	b.mu.Unlock()
	if jar == "" {
		return
	}
	w.note("paused: %s while it refreshes %s", n.name, short(s.sid))
	start := time.Now()
	n.faults(func(s *nodeStore) { s.pause = d })
	w.background.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		a, err := w.patient(ctx, w.device(b.name), "POST", "http://"+n.name+"/v1/auth/refresh", b.cookie(jar), nil)
		if err == nil && a.status == 200 {
			w.gave(n, s, a.body.AccessToken, start)
		}
	})
}

// revive starts a node again as soon as it can be.
func (w *world) revive(n *node) {
	defer n.turn.take()()
	if auth, _ := n.process(); auth != nil {
		return
	}
	for range 100 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := n.start(ctx)
		cancel()
		if err == nil {
			return
		}
		w.note("%s does not start: %v", n.name, err)
		_ = sleep(context.Background(), 200*time.Millisecond)
	}
	w.fail(5, "%s does not start again", n.name)
}

// reclock starts a node again with another clock.
func (w *world) reclock(n *node, skew time.Duration) {
	n.crash()
	n.setClock(skew) // of whatever process is next
	w.revive(n)
}

func (w *world) restart(s *service) {
	defer s.turn.take()()
	if v, _, _ := s.get(); v == nil {
		s.start()
	}
}

// goBack has the database lose what came after a backup, with the nodes
// running or stopped.
func (w *world) goBack(running bool) func() {
	backup, history := w.db.backup()
	at := time.Now()
	return func() {
		defer w.goingBack.take()()
		if _, now := w.db.backup(); now != history {
			return // the backup is of a history that is gone
		}
		began := time.Now()
		if !running {
			for _, n := range w.nodes {
				n.crash()
			}
		}
		w.restored.Add(1)
		w.model.restored(at, began)
		w.model.mu.Lock()
		w.restoredAt = time.Now()
		var ended []*call
		for _, kid := range w.db.kids() {
			if w.model.keys[kid] == nil {
				c := &call{start: began}
				w.model.keys[kid] = c
				ended = append(ended, c)
			}
		}
		w.db.restore(backup, w.planted == "restored with the old keys", w.planted != "restored in the old timeline")
		for _, c := range ended {
			c.ack, c.over = time.Now(), time.Now()
		}
		w.model.mu.Unlock()
		w.note("the database went back to %s before", began.Sub(at))
		if !running {
			for _, n := range w.nodes {
				w.revive(n)
			}
			return
		}
		// Only a process that starts makes keys where there are none: here the
		// command that restores.
		command := &node{w: w, name: "command", turn: make(turn, 1)}
		w.revive(command)
		command.stop()
	}
}
