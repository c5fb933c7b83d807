//go:build linux

package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const issuer = "https://faults.example"

// system is nodes over one database, the load on them, verifiers that follow
// them, and the oracle that watches all of it.
type system struct {
	t        *testing.T
	random   *rand.Rand
	nodes    []*process
	watchers []*watcher
	key      string
	oracle   *oracle
	outages  *outages
	up       []atomic.Bool // nodes that said last that they are ready
	pace     time.Duration // a client rests this long at most between calls
	odd      *process      // a node that is not asked in the end; nil: none

	soft, hard context.Context // the load ends; calls are not repeated any more
	end, abort context.CancelFunc
	clients    sync.WaitGroup
	watching   sync.WaitGroup
}

const (
	clients = 6
	// patience is how long a test waits for what takes a second or so on a
	// machine that has nothing else to do.
	patience = time.Minute
)

// newSystem prepares a database and describes the given number of nodes, none
// of which is started. Each may reach the database by a way of its own.
func newSystem(t *testing.T, database string, ways ...string) *system {
	t.Helper()
	s := &system{t: t, random: newRandom(t), oracle: &oracle{}, outages: newOutages(), pace: 12 * time.Millisecond}
	s.soft, s.end = context.WithCancel(t.Context())
	s.hard, s.abort = context.WithCancel(t.Context())
	seal := filepath.Join(t.TempDir(), "seal")
	if err := os.WriteFile(seal, []byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "migrate", "--database", database)
	s.key = command(t, "api-key", "create", "--name", "faults", "--database", database)
	for _, way := range ways {
		s.nodes = append(s.nodes, serve(t, "--issuer", issuer, "--database", way, "--seal-file", seal))
	}
	s.up = make([]atomic.Bool, len(ways))
	return s
}

func (s *system) stopped(ctx context.Context) bool { return ctx.Err() != nil }

// start starts the nodes, a verifier that follows each, and the load.
func (s *system) start() {
	s.t.Helper()
	for _, node := range s.nodes {
		node.start()
	}
	for _, node := range s.nodes {
		s.watch(node.url)
	}
	s.balance()
	s.load()
}

// balance asks the nodes whether they are ready, as a load balancer does.
func (s *system) balance() {
	for i, node := range s.nodes {
		s.watching.Go(func() {
			c := newHTTPClient()
			c.Timeout = time.Second
			defer c.CloseIdleConnections()
			for !s.stopped(s.hard) {
				s.up[i].Store(request(s.hard, c, "GET", node.url+"/readyz", "", "").status == 200)
				pause(s.hard, 200*time.Millisecond)
			}
		})
	}
}

// load starts the clients. What is wrong in the end is told when the test ends.
func (s *system) load() {
	for i := range clients {
		c := &client{s: s, id: i, http: newHTTPClient(), random: rand.New(rand.NewPCG(s.random.Uint64(), uint64(i)))}
		s.clients.Go(func() {
			c.run()
			c.http.CloseIdleConnections()
		})
	}
	s.t.Cleanup(func() {
		s.end()
		s.abort()
		s.clients.Wait()
		s.watching.Wait()
		s.report()
	})
}

// report fails the test with what the oracle found.
func (s *system) report() {
	s.oracle.mu.Lock()
	defer s.oracle.mu.Unlock()
	for _, text := range s.oracle.wrong {
		s.t.Error(text)
	}
	s.oracle.wrong = nil
}

// wait returns when the condition holds.
func (s *system) wait(what string, most time.Duration, ok func() bool) time.Duration {
	s.t.Helper()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(began) > most {
			s.t.Fatalf("not within %s: %s", most, what)
		}
		<-tick.C
	}
	return time.Since(began)
}

// good counts the calls that went well.
func (s *system) good() (n int) {
	s.outages.mu.Lock()
	defer s.outages.mu.Unlock()
	for _, x := range s.outages.kinds {
		n += x.good
	}
	return n
}

// goOn returns after a random number of further calls went well, at most the
// given one, and of each kind at least one.
func (s *system) goOn(most int) {
	s.t.Helper()
	want := s.good() + 1 + s.random.IntN(most)
	s.wait("calls go well", patience, func() bool { return s.good() >= want })
}

// recover returns when calls of every kind go well again.
func (s *system) recover() {
	s.t.Helper()
	before := s.successes()
	s.wait("calls of each kind go well again", patience, func() bool {
		for k, n := range s.successes() {
			if k != disable && k != everywhere && n < before[k]+5 {
				return false
			}
		}
		return true
	})
}

func (s *system) successes() map[kind]int {
	s.outages.mu.Lock()
	defer s.outages.mu.Unlock()
	all := map[kind]int{}
	for k, x := range s.outages.kinds {
		all[k] = x.good
	}
	return all
}

// finish ends the load and compares everything that was acknowledged with
// what every node and every verifier says.
func (s *system) finish() {
	s.t.Helper()
	s.end()
	giveUp := time.AfterFunc(15*time.Second, s.abort)
	s.clients.Wait()
	giveUp.Stop()
	s.audit()
	s.settle()
	s.abort()
	s.watching.Wait()
	s.report()
	s.t.Logf("%d sessions; %s; the oldest revocation a verifier did not know: %s", len(s.oracle.all()), s.outages, s.oracle.worst.Round(time.Millisecond))
}

// audit asks about every session, the nodes in turn.
func (s *system) audit() {
	var next atomic.Int64
	list := s.oracle.all()
	var askers sync.WaitGroup
	for i := range clients {
		c := &client{s: s, id: i, http: newHTTPClient(), at: i}
		askers.Go(func() {
			defer c.http.CloseIdleConnections()
			for n := next.Add(1) - 1; n < int64(len(list)); n = next.Add(1) - 1 {
				c.auditOne(list[n])
			}
		})
	}
	askers.Wait()
}

func (c *client) auditOne(of *session) {
	c.at++
	node := c.s.nodes[c.at%len(c.s.nodes)]
	if node == c.s.odd {
		c.at++
		node = c.s.nodes[c.at%len(c.s.nodes)]
	}
	began := time.Now()
	a := request(context.Background(), c.http, "POST", node.url+"/v1/auth/refresh", of.token, "")
	if !c.s.oracle.refreshed(of, began, time.Now(), a, node.url) {
		c.s.oracle.problem("after all, %s says of session %s: %s", node.url, of.sid, a.problem)
	}
	if tokens, revoking, _ := c.s.oracle.state(of); revoking.IsZero() && len(tokens) == 0 {
		c.s.oracle.problem("session %s has no access token", of.sid)
	}
}

// within fails the test if calls of some kind failed everywhere for longer.
func (s *system) within(most time.Duration) {
	s.t.Helper()
	if longest := s.outages.longest(); longest > most {
		s.t.Errorf("calls failed for %s, want %s at most", longest, most)
	}
}

// get asks without a credential, on a connection of its own.
func get(url string) answer {
	c := newHTTPClient()
	defer c.CloseIdleConnections()
	return request(context.Background(), c, "GET", url, "", "")
}

// readiness asks /readyz; 0 is no answer.
func readiness(node *process) int { return get(node.url + "/readyz").status }

// ready returns when the nodes say that they are ready, and how long it took.
func (s *system) ready(nodes ...*process) time.Duration {
	s.t.Helper()
	return s.wait("the nodes are ready", patience, func() bool {
		for _, node := range nodes {
			if readiness(node) != 200 {
				return false
			}
		}
		return true
	})
}

// notReady returns when the nodes say that they are not ready.
func (s *system) notReady(nodes ...*process) time.Duration {
	s.t.Helper()
	return s.wait("the nodes say that they are not ready", patience, func() bool {
		for _, node := range nodes {
			if readiness(node) != 503 {
				return false
			}
		}
		return true
	})
}

// failing returns when calls of one of the kinds fail, without exception, for
// a while. All clients may be busy with repeating the same.
func (s *system) failing(kinds ...kind) {
	s.t.Helper()
	s.wait(fmt.Sprint(kinds, " fail"), patience, func() bool {
		s.outages.mu.Lock()
		defer s.outages.mu.Unlock()
		for _, k := range kinds {
			if x := s.outages.kinds[k]; x != nil && !x.since.IsZero() && time.Since(x.since) > 300*time.Millisecond {
				return true
			}
		}
		return false
	})
}

// ask refreshes a session at one node.
func (s *system) ask(node *process, of *session) answer {
	c := newHTTPClient()
	defer c.CloseIdleConnections()
	return request(context.Background(), c, "POST", node.url+"/v1/auth/refresh", of.token, "")
}
