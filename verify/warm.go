package verify

import (
	"crypto"
	"hash/maphash"
	"math/bits"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// Sizes of the table of warm tokens.
const (
	defaultCacheTokens = 8192
	maxCacheTokens     = 1 << 24
	// tokenBudget is the memory of one token, in bytes: what is allotted for
	// each of Config.CacheTokens.
	tokenBudget = 1300
	// tailLength is how much of a token's end is hashed. It is signature, so
	// nobody chooses it.
	tailLength = 64
	// minSets makes the table an object of whole pages, so that each set is
	// one cache line.
	minSets   = 512
	setSlots  = 7
	lineBytes = 64
	// headLength is how much of a token stands in its entry. Tokens with the
	// usual claims are no longer.
	headLength = 560
)

// warmTable remembers tokens that have been verified, so that the next request
// with one costs a lookup, a look at the time and one at the version of the
// revocations.
//
// It is an array of sets, each of one cache line: seven pointers, and a word of
// one tag each that tells which of them to follow. The end of the token, hashed
// under a secret seed, chooses set and tag; the whole text decides. Reads take
// no lock and write nothing. A writer that finds its set busy goes away: that a
// token is missing costs a signature check and nothing else.
//
// Only verified tokens come in, so nobody without a signature of the issuer
// can take memory or push others out. All that is kept fits into the budget;
// beyond it, or in a full set, the expired go first, then the next to expire.
type warmTable struct {
	seed   maphash.Seed
	sets   []warmSet
	mask   uint64
	budget int64
	clock  *coarseClock // nil: the verifier's own, which must be asked each time

	// Written with each token that comes or goes: not on the line of the above.
	_    [2 * lineBytes]byte
	used atomic.Int64  // bytes
	hand atomic.Uint64 // the set that was last looked at for room
	_    [2 * lineBytes]byte
}

type warmSet struct {
	tags  atomic.Uint64 // lane i is that of slot i, 0 for none; the last one is the lock
	slots [setSlots]atomic.Pointer[warmToken]
}

// warmToken is an entry. All but the stamp is never changed. What each request
// asks comes first and the text stands beside it: with many tokens, fetching
// memory takes most of the time, and this is one place to fetch.
type warmToken struct {
	hash   uint64
	claims *Claims
	// The token serves from <= now < until, in Unix nanoseconds, leeway and the
	// end of the keys' own time included.
	from, until int64
	// stamp is a version of the revocations under which nothing was known
	// against the token. It was read before the key was looked up.
	stamp  atomic.Uint64
	length int32 // of the token
	size   int32 // of all that the entry holds, in bytes
	key    *jws.PublicKey
	rest   string // of a token that is longer than head
	head   [headLength]byte
}

func newWarmToken(token string) *warmToken {
	e := &warmToken{length: int32(len(token))}
	if n := copy(e.head[:], token); n < len(token) {
		e.rest = strings.Clone(token[n:])
	}
	return e
}

// is tells whether the entry is of just this text.
func (e *warmToken) is(token string) bool {
	switch {
	case int(e.length) != len(token):
		return false
	case len(token) <= headLength:
		return string(e.head[:len(token)]) == token
	default:
		return string(e.head[:]) == token[:headLength] && e.rest == token[headLength:]
	}
}

// token returns a copy of the text.
func (e *warmToken) token() string {
	return string(e.head[:min(headLength, e.length)]) + e.rest
}

func newWarmTable(tokens int, coarse bool) *warmTable {
	// Between 4.6 and 9.3 slots a token: of a full table's tokens one in ten
	// thousand finds its set full, and each of these costs as much as hundreds
	// of others. An empty slot costs nine bytes.
	sets := max(minSets, 1<<bits.Len(uint(tokens*2/3)))
	w := &warmTable{
		seed:   maphash.MakeSeed(),
		sets:   make([]warmSet, sets),
		mask:   uint64(sets - 1),
		budget: int64(tokens) * tokenBudget,
	}
	if coarse {
		w.clock = new(coarseClock)
	}
	return w
}

const (
	lanes  = 0x0001010101010101 // one bit in each lane that has a slot
	sevens = 0x007f7f7f7f7f7f7f
	lock   = 0xff << 56
)

func (w *warmTable) hash(token string) uint64 {
	return maphash.String(w.seed, token[len(token)-tailLength:])
}

// tagOf is never 0. The set is chosen by other bits of the hash.
func tagOf(hash uint64) uint64 { return hash>>57 | 0x80 }

func (w *warmTable) find(token string) *warmToken {
	if len(token) < tailLength {
		return nil
	}
	hash := w.hash(token)
	s := &w.sets[hash&w.mask]
	// A lane is zero where the tag is the right one; of those the highest bit
	// is left.
	x := s.tags.Load() ^ tagOf(hash)*lanes
	found := ^(((x & sevens) + sevens) | x | sevens) & (lanes << 7)
	for ; found != 0; found &= found - 1 {
		e := s.slots[bits.TrailingZeros64(found)/8].Load()
		if e != nil && e.hash == hash && e.is(token) {
			return e
		}
	}
	return nil
}

// insert adds a token, unless others are at work on its set.
func (w *warmTable) insert(e *warmToken, token string, now int64) {
	if int64(e.size) > w.budget {
		return
	}
	s := &w.sets[e.hash&w.mask]
	if !s.lock() {
		return
	}
	i := s.place(e, token, now)
	grown := e.size
	if old := s.slots[i].Load(); old != nil {
		grown -= old.size
	}
	w.used.Add(int64(grown))
	s.slots[i].Store(e)
	s.unlock(i, tagOf(e.hash))

	for range len(w.sets)/window + setSlots {
		if w.used.Load() <= w.budget {
			return
		}
		w.makeRoom(now)
	}
	w.drop(e)
}

// place chooses the slot for a token: its own, an empty one, that of an expired
// one, or that of the one that expires next.
func (s *warmSet) place(e *warmToken, token string, now int64) int {
	best, bestUntil := 0, int64(-1)
	for i := range s.slots {
		old := s.slots[i].Load()
		until := int64(0)
		switch {
		case old == nil:
		case old.hash == e.hash && old.is(token):
			return i
		case old.until <= now:
			until = 1
		default:
			until = old.until
		}
		if bestUntil < 0 || until < bestUntil {
			best, bestUntil = i, until
		}
	}
	return best
}

// window is how many sets are looked through to make room once.
const window = 64

// makeRoom lets all expired tokens of the next sets go, or if there is none,
// the one of them that expires next.
func (w *warmTable) makeRoom(now int64) {
	var next *warmToken
	freed := false
	for range window {
		s := &w.sets[w.hand.Add(1)&w.mask]
		for i := range s.slots {
			e := s.slots[i].Load()
			switch {
			case e == nil:
			case e.until <= now:
				w.drop(e)
				freed = true
			case next == nil || e.until < next.until:
				next = e
			}
		}
	}
	if !freed && next != nil {
		w.drop(next)
	}
}

// drop takes a token out, unless others are at work on its set.
func (w *warmTable) drop(e *warmToken) {
	s := &w.sets[e.hash&w.mask]
	if !s.lock() {
		return
	}
	for i := range s.slots {
		if s.slots[i].Load() == e {
			s.slots[i].Store(nil)
			w.used.Add(-int64(e.size))
			s.unlock(i, 0)
			return
		}
	}
	s.tags.And(^uint64(lock))
}

func (s *warmSet) lock() bool {
	tags := s.tags.Load()
	return tags&lock == 0 && s.tags.CompareAndSwap(tags, tags|lock)
}

// unlock gives slot i its tag. Nobody else changes the tags in the meantime.
func (s *warmSet) unlock(i int, tag uint64) {
	tags := s.tags.Load()&^lock&^(0xff<<(8*i)) | tag<<(8*i)
	s.tags.Store(tags)
}

// recall returns the claims of a token that has been verified before and would
// be again, without the signature. Otherwise nil: whatever speaks against the
// token, the full check finds it and says it.
func (v *Verifier) recall(token string) *Claims {
	w := v.warm
	if w == nil {
		return nil
	}
	version := v.revocations.Version()
	e := w.find(token)
	if e == nil || !v.inTime(e) || e.stamp.Load() != version && !v.restamp(e, version) {
		return nil
	}
	return e.claims
}

// inTime tells whether the token serves now. The coarse clock decides only
// where it cannot be wrong: away from both ends by far more than its error.
func (v *Verifier) inTime(e *warmToken) bool {
	if c := v.warm.clock; c != nil {
		now := c.now()
		if now-e.from > int64(coarseMargin) && e.until-now > int64(coarseMargin) {
			return true
		}
	}
	now := v.clock().UnixNano()
	return e.from <= now && now < e.until
}

// restamp asks again all that may have changed since the stamp. The version was
// read before, so whatever is revoked meanwhile makes the new stamp an old one.
func (v *Verifier) restamp(e *warmToken, version uint64) bool {
	c := e.claims
	good := !v.revocations.KeyRevoked(e.key.KID()) && v.revocations.Check(c.query()) == revoked.None
	if good {
		k, ok := v.keys.known(e.key.KID(), v.clock())
		good = ok && sameKey(k.key, e.key) && c.ExpiresAt.Sub(c.IssuedAt) <= k.longest
	}
	if !good {
		v.warm.drop(e)
		return false
	}
	e.stamp.Store(version)
	return true
}

// sameKey compares keys by what they are: each fetch of the keys makes new ones.
func sameKey(a, b *jws.PublicKey) bool {
	if a == b {
		return true
	}
	public, ok := a.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && a.KID() == b.KID() && a.Alg() == b.Alg() && public.Equal(b.Public())
}

// remember keeps a token that has just been verified. The version is that of
// before its key was looked up. Nobody else holds c yet.
func (v *Verifier) remember(token string, c *Claims, k knownKey, version uint64, now int64) {
	if v.warm == nil || len(token) < tailLength {
		return
	}
	e := newWarmToken(token)
	e.hash, e.claims, e.key = v.warm.hash(token), c, k.key
	e.from = (c.IssuedAt.Unix()+max(0, int64(c.notBefore)))*1e9 - int64(leeway)
	e.until = min(c.ExpiresAt.UnixNano()+int64(leeway), now+int64(min(k.left, longestDiscovered)))
	e.size = c.footprint(e)
	e.stamp.Store(version)
	// What all tokens share is kept once, and c lets go of the request that the
	// token came with. A handler that appends to a list gets one of its own.
	c.warm, c.token = e, ""
	c.Issuer = v.issuer
	if v.audience != "" {
		c.Audience = v.audience
	}
	c.Methods, c.Roles, c.Scope = slices.Clip(c.Methods), slices.Clip(c.Roles), slices.Clip(c.Scope)
	v.warm.insert(e, token, now)
}

// footprint is the memory that an entry and its claims take, in bytes, rounded
// up as the allocator does: the two, a share of the sets, and each text.
func (c *Claims) footprint(e *warmToken) int32 {
	const fixed = 640 + 288 + lineBytes
	n := fixed + len(e.rest) + len(e.rest)/8
	for _, s := range [...]string{c.Subject, c.ClientID, c.SessionID, c.ID} {
		n += (len(s) + 15) &^ 15
	}
	for _, list := range [...][]string{c.Methods, c.Roles, c.Scope} {
		n += 16 * cap(list)
		for _, s := range list {
			n += (len(s) + 15) &^ 15
		}
	}
	return int32(n)
}
