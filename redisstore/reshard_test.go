package redisstore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/testenv"
	"github.com/counterfoil/counterfoil/redisstore"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// reshard moves the slot of a shard from one server of a cluster to another.
type reshard struct {
	t        *testing.T
	cluster  *testenv.RedisCluster
	from, to *testenv.Redis
	slot     string
}

func newReshard(t *testing.T, cluster *testenv.RedisCluster, shard string) *reshard {
	t.Helper()
	key := "cf:{" + shard + "}:log"
	m := &reshard{t: t, cluster: cluster, slot: do(t, cluster.Nodes[0], "CLUSTER", "KEYSLOT", key)}
	var err error
	if m.from, err = cluster.Master(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	i := slices.Index(cluster.Nodes, m.from)
	m.to = cluster.Nodes[(i+1)%3]
	return m
}

func (m *reshard) id(r *testenv.Redis) string { return do(m.t, r, "CLUSTER", "MYID") }

func (m *reshard) begin() {
	do(m.t, m.to, "CLUSTER", "SETSLOT", m.slot, "IMPORTING", m.id(m.from))
	do(m.t, m.from, "CLUSTER", "SETSLOT", m.slot, "MIGRATING", m.id(m.to))
}

func (m *reshard) keys() []string {
	return strings.Fields(do(m.t, m.from, "CLUSTER", "GETKEYSINSLOT", m.slot, "10000"))
}

func (m *reshard) move(key string) {
	m.t.Helper()
	host, port, _ := strings.Cut(m.to.Addr, ":")
	if _, err := m.from.Do(m.t.Context(), "MIGRATE", host, port, key, "0", "5000"); err != nil {
		m.t.Fatalf("MIGRATE %s: %v", key, err)
	}
}

func (m *reshard) finish() {
	owner := m.id(m.to)
	do(m.t, m.to, "CLUSTER", "SETSLOT", m.slot, "NODE", owner)
	do(m.t, m.from, "CLUSTER", "SETSLOT", m.slot, "NODE", owner)
}

// A server that joins the cluster is unknown, and with it the whole node would
// be in doubt: only the shard that moves there is held back meanwhile.
func TestReshardToNewServer(t *testing.T) {
	cluster := redisCluster(t)
	fresh := redisServer(t, "appendfsync everysec", "cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-node-timeout 1000")
	node := store(t, sqlstore.SQLite(tempDB(t)), cluster.URL)
	host, port, _ := strings.Cut(cluster.Nodes[0].Addr, ":")
	do(t, fresh, "CLUSTER", "MEET", host, port)
	used := map[string]bool{}
	shard, subjects := oneShard(1, "moved", used)
	_, others := oneShard(1, "elsewhere", used)
	there := &resharded{t: t, node: node, living: []counterfoil.Session{signIn(t, node, subjects[0]), signIn(t, node, subjects[0])}}
	other := signIn(t, node, others[0])
	m := newReshard(t, cluster, shard)
	m.to = fresh
	until(t, "the servers know each other", func() bool {
		return strings.Contains(do(t, m.from, "CLUSTER", "NODES"), fresh.Addr) && do(t, fresh, "CLUSTER", "INFO") != "" &&
			testenv.RedisField(do(t, fresh, "CLUSTER", "INFO"), "cluster_state") == "ok"
	})
	m.begin()
	for _, key := range m.keys() {
		m.move(key)
		there.look(key + " was moved")
		if snap, err := node.Sessions().Snapshot(t.Context(), other.ID); err != nil || snap.Session.End != nil {
			t.Errorf("a session of a shard that does not move: %v", err)
		}
	}
	there.end(there.living[0])
	m.finish()
	there.after(subjects)
}

// oneShard finds subjects whose sessions are in a shard, which is not any of those.
func oneShard(count int, name string, not map[string]bool) (shard string, subjects []string) {
	for i := 0; len(subjects) < count; i++ {
		subject := fmt.Sprintf("%s-%d", name, i)
		at := opaque.Shard(subject)
		if shard == "" && !not[at] {
			shard, not[at] = at, true
		}
		if at == shard {
			subjects = append(subjects, subject)
		}
	}
	return shard, subjects
}

// While a slot moves, key by key in whatever order, no session that lives is
// unknown, no end is lost, and nothing is written on both sides.
func TestReshard(t *testing.T) {
	cluster := redisCluster(t)
	db := tempDB(t)
	plain, waiting := store(t, sqlstore.SQLite(db), cluster.URL), store(t, sqlstore.SQLite(db), cluster.URL, redisstore.Wait(1, 2*time.Second))
	used := map[string]bool{}
	for first, node := range map[string]*redisstore.Store{":log": plain, ":s:": waiting, ":u:": plain, ":z:": waiting} {
		t.Run("first "+first, func(t *testing.T) {
			shard, subjects := oneShard(3, "user"+first, used)
			t.Log("shard", shard)
			m := newReshard(t, cluster, shard)
			w := &resharded{t: t, node: node}
			for _, subject := range subjects {
				for range 2 {
					w.living = append(w.living, signIn(t, node, subject))
				}
			}
			m.begin()
			w.look("nothing was moved")
			keys := m.keys()
			slices.SortStableFunc(keys, func(a, b string) int {
				rank := func(key string) int {
					if strings.HasPrefix(key, "cf:{"+shard+"}"+first) {
						return 0
					}
					return 1
				}
				return rank(a) - rank(b)
			})
			for i, key := range keys {
				m.move(key)
				w.look(key + " was moved")
				switch {
				case i%4 == 0 && len(w.living) > 3:
					w.end(w.living[len(w.living)/2])
				case i%4 == 2:
					w.signIn(subjects[i%len(subjects)])
				}
			}
			if left := m.keys(); len(left) > 0 {
				t.Errorf("written behind the move: %q", left)
				for _, key := range left {
					m.move(key)
				}
			}
			w.look("all was moved")
			m.finish()
			w.after(subjects)
		})
	}
}

// resharded is what is known of the sessions of a shard.
type resharded struct {
	t                 *testing.T
	node              *redisstore.Store
	living            []counterfoil.Session
	ended             []string // and acknowledged
	committed         []string // ended, but not told to Redis when the call failed
	good, unavailable int
}

func (w *resharded) count(what string, err error) bool {
	w.t.Helper()
	switch {
	case err == nil:
		w.good++
		return true
	case !errors.Is(err, counterfoil.ErrStoreUnavailable):
		w.t.Errorf("%s: %v, want an answer or that the store is unavailable", what, err)
	}
	w.unavailable++
	return false
}

func (w *resharded) look(when string) {
	w.t.Helper()
	touches := make([]counterfoil.Touch, 0, len(w.living))
	for _, s := range w.living {
		snap, err := w.node.Sessions().Snapshot(w.t.Context(), s.ID)
		if w.count("refresh when "+when, err) && snap.Session.End != nil {
			w.t.Errorf("%s: a session is shown as ended: %+v", when, snap.Session.End)
		}
		touches = append(touches, counterfoil.Touch{ID: s.ID, At: time.Now()})
	}
	for _, id := range w.ended {
		snap, err := w.node.Sessions().Snapshot(w.t.Context(), id)
		if w.count("refresh of one that ended when "+when, err) && snap.Session.End == nil {
			w.t.Errorf("%s: a session that was ended lives", when)
		}
	}
	w.count("touch when "+when, w.node.Sessions().Touch(w.t.Context(), touches))
}

func (w *resharded) end(s counterfoil.Session) {
	w.t.Helper()
	_, err := w.node.Sessions().End(w.t.Context(), counterfoil.EndRequest{ID: s.ID, Retain: retain,
		End: counterfoil.End{Reason: counterfoil.SignedOut, Actor: "user"}})
	w.count("end", err)
	switch {
	case err == nil:
		w.ended = append(w.ended, s.ID)
	case errors.Is(err, counterfoil.ErrNotTold):
		w.committed = append(w.committed, s.ID)
	}
	if err == nil || errors.Is(err, counterfoil.ErrNotTold) {
		w.living = slices.DeleteFunc(w.living, func(one counterfoil.Session) bool { return one.ID == s.ID })
	}
}

func (w *resharded) signIn(subject string) {
	w.t.Helper()
	now := time.Now().UTC()
	snap, err := w.node.Sessions().Insert(w.t.Context(), counterfoil.Session{
		ID: opaque.NewSelector(subject), Subject: subject, ClientID: "default", CreatedAt: now, LastActiveAt: now,
		IdleTimeout: time.Hour, ExpiresAt: now.Add(24 * time.Hour), AuthTime: now, Methods: []string{"pwd"},
	})
	if w.count("sign-in", err) {
		w.living = append(w.living, snap.Session)
	}
}

func (w *resharded) after(subjects []string) {
	w.t.Helper()
	for _, s := range w.living {
		wantAlive(w.t, w.node, s.ID, "its slot was moved, nothing has ended it")
	}
	for _, id := range w.ended {
		wantEnded(w.t, w.node, id, "it was ended while its slot was moved")
	}
	for _, id := range w.committed {
		until(w.t, "it has ended", func() bool {
			snap, err := w.node.Sessions().Snapshot(w.t.Context(), id)
			return err == nil && snap.Session.End != nil
		})
	}
	for _, subject := range subjects {
		w.living = append(w.living, signIn(w.t, w.node, subject))
	}
	listed := map[string]bool{}
	for _, subject := range subjects {
		list, _, err := w.node.Sessions().List(w.t.Context(), counterfoil.ListQuery{Subject: subject, Limit: 100})
		if err != nil {
			w.t.Error(err)
		}
		for _, s := range list {
			listed[s.ID] = true
		}
	}
	for _, s := range w.living {
		if !listed[s.ID] {
			w.t.Error("a session is not in the list of its subject")
		}
	}
	w.t.Logf("answers: %d, unavailable: %d; ends: %d at once, %d told later", w.good, w.unavailable, len(w.ended), len(w.committed))
}
