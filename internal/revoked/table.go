package revoked

import (
	"container/heap"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Verdict is what the table says of a token.
type Verdict int

// The verdicts.
const (
	None    Verdict = iota // nothing is known against the token
	Stale                  // refresh: the subject's rights have changed since
	Revoked                // refused
)

// Query names the token that is asked about.
type Query struct {
	SessionID string
	Subject   string
	TokenID   string
	ClientID  string
	Epoch     int64
}

// Table holds the revocations in force. Reads take no lock. All methods are
// safe for concurrent use.
//
// An entry leaves when its Until has passed by the table's clock, measured by
// the time that has gone by since it was applied, so that a wall clock set back
// or forth changes nothing. Whoever got an entry from another machine sets Until
// by the own clock first. An entry that stays a little longer does no harm: the
// tokens it speaks of are dead. So reads ask no clock, and entries leave while
// others come.
type Table struct {
	clock func() time.Time
	start time.Time // deadlines count from here

	version atomic.Uint64
	plain   [3]probe // sessions, tokens, keys
	epochs  [2]probe // subjects, clients

	listeners atomic.Pointer[[]func([]Entry)]

	mu      sync.Mutex // held by writers
	leaving queue
}

// Places in Table.plain and Table.epochs.
const (
	sessions = iota
	tokens
	keys
)
const (
	subjects = iota
	clients
)

// probe is one map and whether anything is in it, so that reads of an empty
// one cost a load.
type probe struct {
	size atomic.Int64
	rows sync.Map // string → *row, which is never changed once it is in
}

func (p *probe) get(id string) *row {
	if p.size.Load() == 0 {
		return nil
	}
	v, ok := p.rows.Load(id)
	if !ok {
		return nil
	}
	return v.(*row)
}

type row struct {
	entry    Entry
	floor    int64 // for entry.Except: below it, that session's tokens are revoked too
	deadline int64 // nanoseconds since start; never for none
}

const never = math.MaxInt64

// NewTable returns an empty table. A nil clock is time.Now.
func NewTable(clock func() time.Time) *Table {
	if clock == nil {
		clock = time.Now
	}
	return &Table{clock: clock, start: clock()}
}

// Check tells what is known against a token. The key is asked about by
// [Table.KeyRevoked], before the signature is.
func (t *Table) Check(q Query) Verdict {
	if t.plain[sessions].get(q.SessionID) != nil || t.plain[tokens].get(q.TokenID) != nil {
		return Revoked
	}
	if r := t.epochs[clients].get(q.ClientID); r != nil && q.Epoch < r.entry.RevokedBelow {
		return Revoked
	}
	r := t.epochs[subjects].get(q.Subject)
	switch {
	case r == nil:
		return None
	case q.Epoch < r.entry.RevokedBelow:
		if r.entry.Except != "" && q.SessionID == r.entry.Except && q.Epoch >= r.floor {
			return Stale
		}
		return Revoked
	case q.Epoch < r.entry.StaleBelow:
		return Stale
	}
	return None
}

// KeyRevoked reports whether the key was revoked. That is for good.
func (t *Table) KeyRevoked(kid string) bool {
	return t.plain[keys].get(kid) != nil
}

// Version grows with each [Table.Apply], after its entries are in force, and
// with [Table.Advance]. What
// was found under one version holds as long as the version is the same, if the
// version was read before the table was asked.
func (t *Table) Version() uint64 { return t.version.Load() }

// Advance makes a new version without new entries. It is for changes elsewhere
// that what was found under a version rests on, such as those of the keys, and
// is called when they are in force.
func (t *Table) Advance() { t.version.Add(1) }

// Apply puts entries in force: when it returns, every later Check sees them.
// Entries may come more than once and in any order. Of a subject or client the
// greatest epochs are kept. Kinds it does not know are passed over, and so are
// entries whose time is over.
func (t *Table) Apply(entries ...Entry) {
	if len(entries) == 0 {
		return
	}
	t.put(entries)
	if listeners := t.listeners.Load(); listeners != nil {
		for _, heard := range *listeners {
			heard(entries)
		}
	}
}

func (t *Table) put(entries []Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock()
	for _, e := range entries {
		t.insert(e, now)
	}
	t.version.Add(1)
	// More leave than come, so the table never outgrows what is in force by
	// much, and no single call pays for a great many.
	t.sweep(now, 2*len(entries)+16)
}

// Listen has f called with what each Apply from now on is given, when it is in
// force and before Apply returns. f is quick and does not change the entries;
// it may be called by several goroutines. There is no end to it.
func (t *Table) Listen(f func([]Entry)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []func([]Entry)
	if old := t.listeners.Load(); old != nil {
		list = append(list, *old...)
	}
	list = append(list, f)
	t.listeners.Store(&list)
}

func (t *Table) insert(e Entry, now time.Time) {
	p := t.probe(e.Kind)
	if p == nil || e.ID == "" {
		return
	}
	r := &row{entry: e, deadline: never}
	if e.Kind != Key && !e.Until.IsZero() {
		left := e.Until.Sub(now)
		if left <= 0 {
			return
		}
		r.deadline = int64(now.Sub(t.start)) + int64(left)
	}
	old := p.get(e.ID)
	if old != nil {
		r = merge(old, r)
	} else {
		p.size.Add(1)
	}
	p.rows.Store(e.ID, r)
	if r.deadline != never && (old == nil || old.deadline != r.deadline) {
		heap.Push(&t.leaving, leave{r.deadline, e.Kind, e.ID})
	}
}

func (t *Table) probe(k Kind) *probe {
	switch k {
	case Session:
		return &t.plain[sessions]
	case Token:
		return &t.plain[tokens]
	case Key:
		return &t.plain[keys]
	case Subject:
		return &t.epochs[subjects]
	case Client:
		return &t.epochs[clients]
	}
	return nil
}

// merge joins two rows of one ID. It gives the same in whatever order rows
// come: the greatest epochs, the latest end, and the exception of the greatest
// revocation. What any other revocation says of the excepted session stays in floor.
func merge(a, b *row) *row {
	if a.entry.RevokedBelow < b.entry.RevokedBelow {
		a, b = b, a
	}
	m := *a
	switch {
	case a.entry.Except == b.entry.Except:
		m.floor = max(a.floor, b.floor)
	case a.entry.RevokedBelow == b.entry.RevokedBelow:
		// Two sessions, and each entry revokes the other's: neither is kept.
		m.entry.Except = ""
		m.floor = a.entry.RevokedBelow
	default:
		m.floor = max(a.floor, b.entry.RevokedBelow)
	}
	m.entry.StaleBelow = max(a.entry.StaleBelow, b.entry.StaleBelow)
	m.entry.Position = max(a.entry.Position, b.entry.Position)
	if b.deadline > a.deadline {
		m.deadline, m.entry.Until = b.deadline, b.entry.Until
	}
	return &m
}

// sweep lets at most limit entries go whose time is over.
func (t *Table) sweep(now time.Time, limit int) {
	at := int64(now.Sub(t.start))
	for ; limit > 0 && len(t.leaving) > 0 && t.leaving[0].deadline < at; limit-- {
		l := heap.Pop(&t.leaving).(leave)
		p := t.probe(l.kind)
		// A later entry of the same ID may have put the end off.
		if r := p.get(l.id); r != nil && r.deadline == l.deadline {
			p.rows.Delete(l.id)
			p.size.Add(-1)
		}
	}
}

// Len lets go of what is over and returns the number of rows left: one for
// each session, token, key, subject and client.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(t.clock(), math.MaxInt)
	n := int64(0)
	for i := range t.plain {
		n += t.plain[i].size.Load()
	}
	for i := range t.epochs {
		n += t.epochs[i].size.Load()
	}
	return int(n)
}

// Snapshot lets go of what is over and returns entries that put another table
// into the same state, merged and in no order.
func (t *Table) Snapshot() []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(t.clock(), math.MaxInt)
	var out []Entry
	add := func(_, v any) bool {
		r := v.(*row)
		if r.entry.Except != "" && r.floor > 0 {
			e := r.entry
			e.Except, e.StaleBelow, e.RevokedBelow = "", 0, r.floor
			out = append(out, e)
		}
		out = append(out, r.entry)
		return true
	}
	for i := range t.plain {
		t.plain[i].rows.Range(add)
	}
	for i := range t.epochs {
		t.epochs[i].rows.Range(add)
	}
	return out
}

// queue is a heap of ends, the earliest first.
type queue []leave

type leave struct {
	deadline int64
	kind     Kind
	id       string
}

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].deadline < q[j].deadline }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(leave)) }
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = leave{}
	*q = old[:len(old)-1]
	return last
}
