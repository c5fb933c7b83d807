package directory

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/counterfoil/counterfoil/verify"
)

// hasher runs the slow hash, a few at once. Each fills tens of megabytes, so
// that without the cap a burst of sign-ins would take all memory; without the
// bound on the queue it would take all patience.
type hasher struct {
	params Argon2id
	dummy  phc
	slots  chan struct{} // held while hashing
	places chan struct{} // held while hashing or waiting for a slot

	computed atomic.Int64 // hashes computed since the start
}

func newHasher(params Argon2id, parallel, queued int) *hasher {
	return &hasher{
		params: params,
		dummy:  unmatchable(params),
		slots:  make(chan struct{}, parallel),
		places: make(chan struct{}, parallel+queued),
	}
}

// enter takes a place among those who hash or wait to: [verify.ErrUnavailable]
// when there is none. It never waits.
func (h *hasher) enter() (leave func(), err error) {
	select {
	case h.places <- struct{}{}:
		return func() { <-h.places }, nil
	default:
		return nil, fmt.Errorf("%w: %d password hashes are computed or waited for", verify.ErrUnavailable, cap(h.places))
	}
}

// slot waits for one of the slots, or for the end of the context. The caller
// has a place.
func (h *hasher) slot(ctx context.Context) (release func(), err error) {
	if err := ctx.Err(); err != nil { // select takes either when both are ready
		return nil, fmt.Errorf("%w: wait to hash a password: %w", verify.ErrUnavailable, err)
	}
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: wait to hash a password: %w", verify.ErrUnavailable, ctx.Err())
	}
}

// hash makes the PHC string of a new password. The caller has a place.
func (h *hasher) hash(ctx context.Context, password []byte) (string, error) {
	release, err := h.slot(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	h.computed.Add(1)
	return hashPassword(h.params, password).String(), nil
}

// check compares a password with the kept hash; with an empty one it compares
// with the dummy, so that the answer no takes as long. When the password
// matches a hash of other parameters, renewed is a new one. The caller has a place.
func (h *hasher) check(ctx context.Context, password []byte, kept string) (ok bool, renewed string, err error) {
	against := h.dummy
	if kept != "" {
		if against, err = parsePHC(kept); err != nil {
			return false, "", fmt.Errorf("stored password: %w", err)
		}
	}
	release, err := h.slot(ctx)
	if err != nil {
		return false, "", err
	}
	defer release()
	h.computed.Add(1)
	if !against.matches(password) || kept == "" {
		return false, "", nil
	}
	if against.Argon2id != h.params {
		h.computed.Add(1)
		renewed = hashPassword(h.params, password).String()
	}
	return true, renewed, nil
}
