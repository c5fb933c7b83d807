package verify

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/revoked"
)

// revocationBudget is the most that one revoked session takes of a verifier's
// memory, in bytes, as docs/benchmarks.md says.
const revocationBudget = 400

// SEC-39: a million revoked sessions take what is stated and no more, each of
// them is refused and no other, and all leave when their time is over. There is
// no number beyond which any would be forgotten early: what is in force is
// bounded by how many sessions end within the life of a token.
func TestSEC39AMillionRevokedSessions(t *testing.T) {
	million := manyRevoked
	if testing.Short() {
		million = 50_000
	}
	sid := func(i int) string { return fmt.Sprintf("%024d", i) }
	l := newLocal(t, nil)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	// Of two sessions next to each other the first is revoked.
	revoke := func(from, to int) {
		batch := make([]revoked.Entry, 0, 1000)
		until := l.clock.Now().Add(5*time.Minute + retainMargin)
		for i := from; i < to; i++ {
			batch = append(batch, revoked.Entry{Kind: revoked.Session, ID: sid(2 * i), Until: until})
			if len(batch) == cap(batch) || i == to-1 {
				l.table.Apply(batch...)
				batch = batch[:0]
			}
		}
	}
	right := func(n int) {
		t.Helper()
		for i := range 2 * n {
			want := revoked.None
			if i%2 == 0 {
				want = revoked.Revoked
			}
			if got := l.table.Check(revoked.Query{SessionID: sid(i), Subject: "user-1", ClientID: "default"}); got != want {
				t.Fatalf("session %d of %d: %v, want %v", i, 2*n, got, want)
			}
		}
		for i := range 20 {
			token := func(session int) string {
				return l.eddsa.mint(t, goodClaims(l.clock.Now()).with(claims{"sid": sid(session), "jti": fmt.Sprint(n, session)}))
			}
			check(t, l.Verifier, token(2*(i*n/20)), ErrTokenRevoked)
			check(t, l.Verifier, token(2*(i*n/20)+1), nil)
		}
	}

	before := heap()
	revoke(0, million)
	used := heap() - before
	t.Logf("%d bytes a revoked session", used/int64(million))
	if used > int64(million*revocationBudget) {
		t.Errorf("%d bytes a revoked session, %d were stated", used/int64(million), revocationBudget)
	}
	right(million)

	// More, a minute later: the million stays for its time, and then leaves while
	// others come.
	more := million / 10
	l.clock.advance(time.Minute)
	revoke(million, million+more)
	if n := l.table.Len(); n != million+more {
		t.Errorf("%d are in force, want %d", n, million+more)
	}
	l.clock.advance(4*time.Minute + retainMargin + time.Second)
	revoke(million+more, million+2*more)
	if used := heap() - before; used > int64(million*revocationBudget*9/10) {
		t.Errorf("%d bytes are held, and a fifth of those entries left while others came", used)
	}
	if n := l.table.Len(); n != 2*more {
		t.Errorf("%d are in force, want %d", n, 2*more)
	}
	l.clock.advance(time.Hour)
	if n, used := l.table.Len(), heap()-before; n != 0 || used > int64(million*revocationBudget/4) {
		t.Errorf("an hour later %d are left, and %d bytes", n, used)
	}
}
