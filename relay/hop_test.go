package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// ledger is a log as PostgreSQL's is: entries get their numbers first and are
// committed in any order, so that nodes meet gaps.
type ledger struct {
	mu        sync.Mutex
	drawn     int64
	committed map[int64]revoked.Entry
}

func (l *ledger) draw() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drawn++
	return l.drawn
}

func (l *ledger) commit(seq int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.committed[seq] = revoked.Entry{Kind: revoked.Session, ID: fmt.Sprint("s", seq), Until: time.Now().Add(time.Hour), Position: seq}
}

// gapNode is a node that reads the ledger now and then.
type gapNode struct {
	*origin
	ledger *ledger
	have   map[int64]bool
	low    int64
}

func (n *gapNode) read() {
	n.ledger.mu.Lock()
	var news []revoked.Entry
	for seq := n.low + 1; seq <= n.ledger.drawn; seq++ {
		if e, ok := n.ledger.committed[seq]; ok && !n.have[seq] {
			n.have[seq] = true
			news = append(news, e)
		}
	}
	for n.have[n.low+1] {
		n.low++
	}
	n.ledger.mu.Unlock()
	n.table.Apply(news...)
	n.server.Publish(feed.Position{Timeline: 7, Seq: n.low}, news, time.Now())
}

// A reader that changes between nodes and relays of different levels, with
// nothing but its position, misses no entry, however late and in whatever order
// entries were committed.
func TestAReaderThatHopsMissesNothing(t *testing.T) {
	first := uint64(time.Now().UnixNano())
	for i := range 8 {
		seed := first + uint64(i)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { hop(t, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func hop(t *testing.T, r *rand.Rand) {
	network, log := newNetwork(), &ledger{committed: make(map[int64]revoked.Entry)}
	var nodes []*gapNode
	for i := range 2 {
		n := &gapNode{origin: newOrigin(t), ledger: log, have: make(map[int64]bool)}
		n.server.Close()
		n.table = revoked.NewTable(nil)
		n.server = feed.NewServer(feed.ServerConfig{Node: fmt.Sprint("node-", i), Retain: time.Minute, KeyVersion: n.keyVersion, Snapshot: n.table.Snapshot, Wake: func() {}})
		n.read()
		nodes = append(nodes, n)
		network.host(fmt.Sprint("node-", i), n)
		defer n.server.Close()
	}
	links := []*link{network.link(), network.link(), network.link(), network.link()}
	hosts := []string{"node-0", "node-1"}
	relays := make([]*Relay, 3)
	start := func(i int) {
		follow := [][]string{{"http://node-0", "http://node-1"}, {"http://node-1"}, {"http://relay-0", "http://relay-1"}}[i]
		relay, err := New(t.Context(), Config{Issuer: testIssuer, Authorities: follow, APIKey: newKey(), Transport: links[i].transport(), Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		relays[i] = relay
		network.host(relayName(i), relay)
	}
	for i := range relays {
		start(i)
		hosts = append(hosts, relayName(i))
	}
	defer func() {
		for _, relay := range relays {
			_ = relay.Close()
		}
	}()

	known, last := make(map[string]bool), ""
	key := newKey()
	// follow reads a few frames at one of the hosts.
	follow := func(host string, frames int) (at string) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+feedPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+key)
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		res, err := links[3].transport().RoundTrip(req)
		if err != nil {
			return last
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return last // it has not come so far
		}
		reader := feed.NewReader(res.Body)
		for range frames {
			f, err := reader.Next()
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
					t.Log(err)
				}
				break
			}
			for _, e := range f.Entries {
				known[e.ID] = true
			}
			if f.HasPos {
				last = f.Pos.String()
			}
		}
		return last
	}
	var open []int64
	for range 400 {
		time.Sleep(time.Duration(r.Int64N(int64(20 * time.Millisecond))))
		switch n := r.IntN(20); {
		case n < 7:
			open = append(open, log.draw())
		case n < 14 && len(open) > 0:
			i := r.IntN(len(open))
			log.commit(open[i])
			open = slices.Delete(open, i, i+1)
		case n < 16:
			nodes[r.IntN(2)].read()
		case n < 17:
			links[r.IntN(3)].cut(false)
		case n < 18:
			i := r.IntN(3)
			_ = relays[i].Close()
			start(i) // it begins with a snapshot, in the middle of gaps
		default:
			follow(hosts[r.IntN(len(hosts))], 1+r.IntN(6))
		}
	}
	for _, seq := range open {
		log.commit(seq)
	}
	for _, n := range nodes {
		n.read()
	}
	time.Sleep(time.Minute)
	for _, n := range nodes {
		n.read()
	}
	want := feed.Position{Timeline: 7, Seq: log.drawn}.String()
	for range 20 {
		if follow(hosts[r.IntN(len(hosts))], 20) == want {
			break
		}
	}
	if last != want {
		t.Errorf("the reader came to %s, want %s", last, want)
	}
	for seq := range log.committed {
		if !known[fmt.Sprint("s", seq)] {
			t.Errorf("entry %d was missed", seq)
		}
	}
}
