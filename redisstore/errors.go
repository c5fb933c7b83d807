package redisstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/counterfoil/counterfoil"
)

// ErrRestored says that Redis holds data older than what the journal reaches
// back to: revocations may be missing that nobody can tell any more.
var ErrRestored = errors.New("redis holds data from before the journal begins: run counterfoil restored, or empty it (all sign in anew)")

// ErrForeign says that this Redis holds the sessions of another database.
var ErrForeign = errors.New("this redis keeps the sessions of another database: name the right one, or one that is empty")

// unavailable says that Redis could not be asked, or could not answer.
func unavailable(err error) error {
	if err == nil || errors.Is(err, counterfoil.ErrStoreUnavailable) || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: redis: %w", counterfoil.ErrStoreUnavailable, err)
}

// failed wraps err with what was being done.
func failed(op string, err error) error {
	return fmt.Errorf("redisstore: %s: %w", op, err)
}

var errShape = errors.New("a script answered in a shape of another version")
