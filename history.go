package counterfoil

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/internal/revoked"
	"github.com/counterfoil/counterfoil/verify"
)

// ErrStoreWentBack says that the store lacks what this node has read from it:
// it was set back (a backup, a former primary, a standby that was far behind)
// and nobody ran counterfoil restored. It wraps ErrStoreUnavailable.
var ErrStoreWentBack = fmt.Errorf("%w: it went back in time: run counterfoil restored", ErrStoreUnavailable)

// history is what a node knows of the log beyond what the log says now. A
// store can lose what it has reported as done: a standby that is promoted may
// not have got it. Then nodes that live on remember what they have in force
// until its tokens are dead, and record it again.
type history struct {
	a        *Authority
	failure  atomic.Pointer[error]
	timeline int64 // 0: nothing was read
	resolved int64 // the highest of this timeline
	cut      int64 // what the last batch told
	marks    []mark
	before   *error // the failure from before an older timeline was met
	older    bool
	lost     map[entryKey]Revocation // in force here, and not found in the log so far; nil: nothing is compared
}

// mark is when a position was reached.
type mark struct {
	at       time.Time
	position int64
}

type entryKey struct {
	kind revoked.Kind
	id   string
}

const (
	markEvery = time.Second
	// raiseAtMost bounds what one entry may cost. Epochs that are further
	// apart are those of a store that was set back by more than a promotion.
	raiseAtMost = 10_000
)

// err is not nil while nothing may be minted from this store.
func (h *history) err() error {
	if err := h.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func (h *history) fail(err error) { h.failure.Store(&err) }

// take looks at a batch before it is used. again says that the log is to be
// read from its beginning.
func (h *history) take(batch *FeedBatch) (again bool, err error) {
	began := false
	switch {
	case h.timeline == 0:
		h.timeline = batch.Timeline
	case batch.Timeline < h.timeline:
		// Nothing in it is used: whoever follows this node sees that it grows old.
		err := fmt.Errorf("%w: its timeline %d is older than %d, which this node has followed; is it a former primary?",
			ErrStoreWentBack, batch.Timeline, h.timeline)
		if !h.older {
			h.older, h.before = true, h.failure.Load()
		}
		h.fail(err)
		return false, err
	case batch.Timeline > h.timeline, batch.Cut > 0 && batch.Cut < h.resolved && batch.Cut != h.cut:
		began = true
	}
	h.cut = batch.Cut // once: every later batch of this timeline tells of it again
	if h.older {
		h.older = false
		h.failure.Store(h.before)
	}
	if !began {
		h.note(batch)
		return false, nil
	}
	h.failure.Store(nil)
	if remembered := h.remembered(h.a.now()); batch.Cut > 0 && batch.Cut < remembered {
		h.fail(fmt.Errorf("%w: the log ends at %d, and this node no longer remembers all that it has read up to %d", ErrStoreWentBack, batch.Cut, remembered))
	}
	h.timeline, h.resolved, h.marks = batch.Timeline, 0, nil
	if h.lost == nil {
		h.lost = make(map[entryKey]Revocation)
	}
	for _, e := range h.a.revocations.Snapshot() {
		h.lost[entryKey{e.Kind, e.ID}] = e
	}
	return true, nil
}

// note takes account of a batch that is used.
func (h *history) note(batch *FeedBatch) {
	for i := range batch.Entries {
		e := &batch.Entries[i]
		key := entryKey{e.Kind, e.ID}
		if was, ok := h.lost[key]; ok && e.StaleBelow >= was.StaleBelow && e.RevokedBelow >= was.RevokedBelow {
			delete(h.lost, key)
		}
	}
	h.resolved = max(h.resolved, batch.Resolved)
	now := h.a.now()
	if n := len(h.marks); n == 0 || now.Sub(h.marks[n-1].at) >= markEvery {
		h.remembered(now)
		h.marks = append(h.marks, mark{now, h.resolved})
	}
}

// remembered is a position such that entries above it are still in force here:
// the one that had been reached before anything can have left.
func (h *history) remembered(now time.Time) (position int64) {
	old := now.Add(-h.a.retain())
	for len(h.marks) > 1 && !h.marks[1].at.After(old) {
		h.marks = h.marks[1:]
	}
	if len(h.marks) > 0 && !h.marks[0].at.After(old) {
		return h.marks[0].position
	}
	return 0
}

// missing returns what the log that was now read whole lacks.
func (h *history) missing() []Revocation {
	if len(h.lost) == 0 {
		h.lost = nil
		return nil
	}
	list := make([]Revocation, 0, len(h.lost))
	for _, e := range h.lost {
		list = append(list, e)
	}
	h.lost = nil
	return list
}

// recordAgain writes revocations into a store that has lost them, until that
// is done. Other nodes do the same: what is in the store already stays as it is.
func (a *Authority) recordAgain(ctx context.Context, lost []Revocation) {
	a.log.Warn("counterfoil: the store has lost revocations that this node knows: they are recorded again", "count", len(lost))
	retry := firstRetry
	for len(lost) > 0 && ctx.Err() == nil {
		e := &lost[0]
		var err error
		if e.Kind == revoked.Key || e.Until.After(a.now()) { // else no token is left that it refuses
			err = a.recordEntry(ctx, e)
		}
		switch {
		case err == nil:
			retry = firstRetry
		case errors.Is(err, ErrStoreUnavailable) || errors.Is(err, verify.ErrUnavailable):
			a.report("record a revocation again", err)
			pause(ctx, retry)
			retry = min(2*retry, lastRetry)
			continue
		default:
			a.log.Error("counterfoil: a revocation that the store has lost cannot be recorded again", "kind", e.Kind.String(), "id", e.ID, "error", err)
		}
		lost = lost[1:]
	}
}

func (a *Authority) recordEntry(ctx context.Context, e *Revocation) (err error) {
	switch e.Kind {
	case revoked.Session:
		err = a.RevokeSession(ctx, e.ID, Revoked, By(recoveryActor))
		if errors.Is(err, ErrNotFound) {
			return a.recordLost(ctx, e)
		}
	case revoked.Key:
		err = a.RevokeKey(ctx, e.ID)
	case revoked.Subject:
		return a.recordSubject(ctx, e)
	}
	if errors.Is(err, ErrNotFound) {
		return nil // lost as well
	}
	return err
}

// recordLost tells the verifiers of other nodes of the end of a session that
// the store has lost as well: its access tokens may still live.
func (a *Authority) recordLost(ctx context.Context, e *Revocation) error {
	entry, err := a.store.Feed().Record(ctx, Revocation{Kind: e.Kind, ID: e.ID}, a.retain())
	if err != nil {
		return a.storeError("record a revocation", err)
	}
	a.Apply(entry)
	return nil
}

// recoveryActor is who ended what was recorded again: by whom it was ended at
// first, and why, is lost.
const recoveryActor = "recovery"

// recordSubject raises a subject's epoch to what verifiers were told.
func (a *Authority) recordSubject(ctx context.Context, e *Revocation) error {
	sub, err := a.sessions.Subject(ctx, e.ID)
	if err != nil {
		return a.storeError("read subject", err)
	}
	signOut := sub.SignedOutBelow < e.RevokedBelow
	want := e.StaleBelow
	if signOut {
		want = max(want, e.RevokedBelow) - 1 // the last step comes with the sign-out
	}
	if want-sub.Epoch > raiseAtMost {
		return fmt.Errorf("%w: the epoch of a subject is %d and was %d", ErrStoreWentBack, sub.Epoch, want)
	}
	for ; sub.Epoch < want; sub.Epoch++ {
		if err := a.RightsChanged(ctx, e.ID); err != nil {
			return err
		}
	}
	if !signOut {
		return nil
	}
	opts := []RevokeOption{By(recoveryActor)}
	if e.Except != "" {
		opts = append(opts, Except(e.Except))
	}
	return a.RevokeSubject(ctx, e.ID, Revoked, opts...)
}
