package revoked

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	c.mu.Unlock()
}

func newClock() *clock { return &clock{now: time.Unix(1763770000, 0)} }

func TestVerdicts(t *testing.T) {
	c := newClock()
	end := c.now.Add(time.Minute)
	table := NewTable(c.Now)
	if table.Check(Query{SessionID: "s1", Subject: "u1"}) != None || table.KeyRevoked("k1") {
		t.Fatal("an empty table knows something")
	}
	table.Apply(
		Entry{Kind: Session, ID: "s1", Until: end},
		Entry{Kind: Token, ID: "j1", Until: end},
		Entry{Kind: Client, ID: "c1", RevokedBelow: 5, Until: end},
		Entry{Kind: Key, ID: "k1"},
		Entry{Kind: Subject, ID: "stale", StaleBelow: 10, Until: end},
		Entry{Kind: Subject, ID: "out", StaleBelow: 10, RevokedBelow: 10, Until: end},
		Entry{Kind: Subject, ID: "others", StaleBelow: 10, RevokedBelow: 10, Except: "kept", Until: end},
		Entry{Kind: Kind('z'), ID: "s9", Until: end},
	)
	for _, tc := range []struct {
		q    Query
		want Verdict
	}{
		{Query{SessionID: "s1"}, Revoked},
		{Query{SessionID: "S1"}, None},
		{Query{SessionID: "s9"}, None},
		{Query{TokenID: "j1"}, Revoked},
		{Query{ClientID: "c1", Epoch: 4}, Revoked},
		{Query{ClientID: "c1", Epoch: 5}, None},
		{Query{Subject: "stale", Epoch: 9}, Stale},
		{Query{Subject: "stale", Epoch: 10}, None},
		{Query{Subject: "out", Epoch: 9, SessionID: "any"}, Revoked},
		{Query{Subject: "out", Epoch: 10}, None},
		{Query{Subject: "others", Epoch: 9, SessionID: "any"}, Revoked},
		{Query{Subject: "others", Epoch: 9, SessionID: "kept"}, Stale},
		{Query{Subject: "others", Epoch: 10, SessionID: "kept"}, None},
		// A name is a name of its kind only.
		{Query{SessionID: "j1", TokenID: "s1", Subject: "s1", ClientID: "k1"}, None},
	} {
		if got := table.Check(tc.q); got != tc.want {
			t.Errorf("%+v: %v, want %v", tc.q, got, tc.want)
		}
	}
	if !table.KeyRevoked("k1") || table.KeyRevoked("s1") {
		t.Error("keys")
	}
}

func TestGreatestEpochsWinInAnyOrder(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	c := newClock()
	sids := []string{"", "a", "b"}
	for range 500 {
		var entries []Entry
		for range 1 + r.IntN(6) {
			e := Entry{Kind: Subject, ID: "u", StaleBelow: r.Int64N(6), Until: c.now.Add(time.Minute)}
			if r.IntN(3) > 0 {
				e.RevokedBelow = 1 + r.Int64N(5)
				e.Except = sids[r.IntN(len(sids))]
			}
			entries = append(entries, e)
		}
		table := NewTable(c.Now)
		for _, i := range r.Perm(len(entries)) {
			table.Apply(entries[i])
		}
		copied := NewTable(c.Now)
		copied.Apply(table.Snapshot()...)
		for epoch := range int64(7) {
			for _, sid := range []string{"a", "b", "x"} {
				// What each entry says alone, the hardest counts.
				want := None
				for _, e := range entries {
					v := None
					switch {
					case epoch < e.RevokedBelow && sid != e.Except:
						v = Revoked
					case epoch < e.RevokedBelow || epoch < e.StaleBelow:
						v = Stale
					}
					want = max(want, v)
				}
				q := Query{Subject: "u", SessionID: sid, Epoch: epoch}
				if got := table.Check(q); got != want {
					t.Fatalf("%+v on %+v: %v, want %v", q, entries, got, want)
				}
				if got := copied.Check(q); got != want {
					t.Fatalf("%+v on a copy of %+v: %v, want %v", q, entries, got, want)
				}
			}
		}
	}
}

func TestEntriesLeaveByThemselvesAndKeysStay(t *testing.T) {
	c := newClock()
	table := NewTable(c.Now)
	table.Apply(Entry{Kind: Key, ID: "k", Until: c.now.Add(time.Second)})
	table.Apply(Entry{Kind: Session, ID: "put off", Until: c.now.Add(time.Second)})
	table.Apply(Entry{Kind: Session, ID: "put off", Until: c.now.Add(time.Hour)})
	table.Apply(Entry{Kind: Session, ID: "put off", Until: c.now.Add(time.Minute)}) // comes late, changes nothing
	table.Apply(Entry{Kind: Session, ID: "over", Until: c.now.Add(-time.Second)})
	table.Apply(Entry{Kind: Session, ID: "no end"})
	if n := table.Len(); n != 3 {
		t.Fatalf("%d rows", n)
	}
	// A table under steady load holds what is in force, not what ever was.
	most := 0
	for i := range 20_000 {
		table.Apply(Entry{Kind: Session, ID: fmt.Sprint(i), Until: c.Now().Add(10 * time.Second)})
		c.advance(10 * time.Millisecond)
		n := int(table.plain[sessions].size.Load())
		most = max(most, n)
	}
	if most > 1_100 {
		t.Errorf("%d rows where 1,000 are in force", most)
	}
	c.advance(time.Minute)
	if n := table.Len(); n != 3 {
		t.Errorf("%d rows left", n)
	}
	if len(table.Snapshot()) != 3 || table.Check(Query{SessionID: "put off"}) != Revoked {
		t.Error("a later end was forgotten")
	}
	c.advance(time.Hour)
	if n := table.Len(); n != 2 || !table.KeyRevoked("k") {
		t.Errorf("%d rows left, key revoked: %v", n, table.KeyRevoked("k"))
	}
	if len(table.leaving) != 0 {
		t.Errorf("%d ends are waited for", len(table.leaving))
	}
}

func TestVersionGrowsAfterTheEntriesAreIn(t *testing.T) {
	table := NewTable(nil)
	var wg sync.WaitGroup
	var done atomic.Bool
	const n = 2000
	ids := make([]string, n+1)
	for i := range ids {
		ids[i] = fmt.Sprint(i)
	}
	for range 4 {
		wg.Go(func() {
			for !done.Load() {
				v := table.Version()
				if v > 0 && table.Check(Query{SessionID: ids[v]}) != Revoked {
					t.Errorf("version %d without its entry", v)
					return
				}
			}
		})
	}
	for i := 1; i <= n; i++ {
		table.Apply(Entry{Kind: Session, ID: ids[i], Until: time.Now().Add(time.Hour)})
	}
	done.Store(true)
	wg.Wait()
	if table.Version() != n {
		t.Errorf("version %d after %d calls", table.Version(), n)
	}
}

func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{0, 10_000, 1_000_000} {
		b.Run(fmt.Sprintf("revoked=%d", n), func(b *testing.B) {
			table := NewTable(nil)
			for i := range n {
				table.Apply(Entry{Kind: Session, ID: fmt.Sprint("sid", i), Until: time.Now().Add(time.Hour)})
			}
			table.Apply(Entry{Kind: Subject, ID: "somebody", StaleBelow: 1, Until: time.Now().Add(time.Hour)})
			q := Query{SessionID: "4fzyo82mvyr9z0KfJ2W8QhpD", Subject: "user-1234", TokenID: "jti", ClientID: "default"}
			b.ReportAllocs()
			for b.Loop() {
				if table.Check(q) != None {
					b.Fatal("revoked")
				}
			}
		})
	}
}
