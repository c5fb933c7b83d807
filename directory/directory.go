// Package directory keeps the users who sign in here: e-mail address,
// password and passkeys, roles and scopes, disabling. An application with its
// own users skips it and calls [counterfoil.Authority.StartSession] itself.
//
// What it does not do: it sends no mail (it makes the one-time token that your
// mail carries), does not prove that an address belongs to who signs up, and
// knows no second factor beside the password. A passkey brings its own.
package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// Config configures a [Directory]. Zero values mean the stated default.
type Config struct {
	// MinPasswordLength is in characters (code points after NFC); default 15,
	// which NIST SP 800-63B-4 asks of a password that is the only factor.
	MinPasswordLength int
	// UnsafeShortPasswords permits a MinPasswordLength of 8 to 14: for
	// applications that ask for a second factor of their own.
	UnsafeShortPasswords bool
	// BannedPasswords are refused as a whole, letter case aside: one a line,
	// read by New and kept in memory. They add to a short built-in list of
	// words, against which repetitions and runs are told too.
	BannedPasswords io.Reader
	// ContextWords are what a guesser would try here: the names of the
	// product and the company. At least three letters each.
	ContextWords []string
	// Breached asks a service whether a new password is publicly known. It
	// has 2 s; when it fails, the password is taken after the local checks
	// and the failure logged.
	Breached func(ctx context.Context, password string) (bool, error)
	// BreachedRequired refuses new passwords ([verify.ErrUnavailable]) while
	// Breached fails.
	BreachedRequired bool

	// Hash are the parameters of the password hash; default [DefaultArgon2id].
	// At least 19 MiB, and at least the work of two passes over 19 MiB. A
	// changed value reaches each user with the next sign-in; until then a
	// wrong password for such a user takes the time of the old parameters.
	Hash Argon2id
	// MaxParallelHashes bounds the hashes computed at once, and with it the
	// memory: so many times Hash.Memory, and the garbage of as many. Default:
	// one a core, at most 8.
	MaxParallelHashes int
	// MaxQueuedHashes bounds those that wait; more are answered with
	// [verify.ErrUnavailable]. Default 64.
	MaxQueuedHashes int

	// ResetLifetime is how long a password-reset token is good, 15 to 60
	// minutes; default 30.
	ResetLifetime time.Duration
	// Throttle slows down who guesses passwords.
	Throttle Throttle
	// RelyingParty is what passkeys are bound to; default the issuer's host.
	RelyingParty RelyingParty
	// Notify is told what the user should hear of, once it is done: send a
	// mail. It is called in the request that did it, so it must return soon.
	Notify func(ctx context.Context, e Event)
	// Logger receives what operators should know; default [slog.Default].
	Logger *slog.Logger
}

const (
	defaultMinPassword = 15
	leastMinPassword   = 8
	mostMinPassword    = 64
	defaultQueued      = 64
	maxDefaultParallel = 8
	defaultReset       = 30 * time.Minute
	// throughPair attempts with one account from one network are looked at
	// at a time, by each node.
	throughPair = 2
	waitingPair = 32
	methodPwd   = "pwd" // RFC 8176
	actorUser   = "user"
)

// Directory signs users up and in. Its methods are safe for concurrent use.
type Directory struct {
	auth     *counterfoil.Authority
	store    Store
	cfg      Config
	rules    *passwordRules
	hasher   *hasher
	throttle *throttle
	turns    *turnstile
	log      *slog.Logger
}

// New makes a directory over a store that was opened. Errors: a
// [*counterfoil.FieldError] for the configuration.
func New(auth *counterfoil.Authority, store Store, config Config) (*Directory, error) {
	givenID := config.RelyingParty.ID
	config = config.withDefaults()
	config.RelyingParty = config.RelyingParty.withDefaults(auth.Config().Issuer)
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	if err := config.RelyingParty.validate(givenID); err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	rules, err := newPasswordRules(config)
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	return &Directory{
		auth: auth, store: store, cfg: config, rules: rules, log: config.Logger,
		hasher:   newHasher(config.Hash, config.MaxParallelHashes, config.MaxQueuedHashes),
		throttle: &throttle{Throttle: config.Throttle, store: store, now: auth.Now, log: config.Logger},
		turns:    newTurnstile(min(throughPair, config.Throttle.Pair.Free, config.Throttle.Session.Free), waitingPair),
	}, nil
}

func (c Config) withDefaults() Config {
	if c.MinPasswordLength == 0 {
		c.MinPasswordLength = defaultMinPassword
	}
	if c.Hash == (Argon2id{}) {
		c.Hash = DefaultArgon2id
	}
	if c.MaxParallelHashes == 0 {
		c.MaxParallelHashes = min(runtime.GOMAXPROCS(0), maxDefaultParallel)
	}
	if c.MaxQueuedHashes == 0 {
		c.MaxQueuedHashes = defaultQueued
	}
	if c.ResetLifetime == 0 {
		c.ResetLifetime = defaultReset
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Throttle = c.Throttle.withDefaults()
	return c
}

func (c *Config) validate() error {
	least := defaultMinPassword
	if c.UnsafeShortPasswords {
		least = leastMinPassword
	}
	switch {
	case c.MinPasswordLength < least || c.MinPasswordLength > mostMinPassword:
		return &counterfoil.FieldError{Field: "MinPasswordLength", Message: fmt.Sprintf("%d must be %d to %d (8 to 14 with UnsafeShortPasswords)", c.MinPasswordLength, least, mostMinPassword)}
	case c.Hash.tooWeak():
		return &counterfoil.FieldError{Field: "Hash", Message: fmt.Sprintf("m=%d KiB, t=%d is too weak: at least m=%d with t=2, or the same work with more memory", c.Hash.Memory, c.Hash.Time, minMemory)}
	case c.Hash.outOfRange():
		return &counterfoil.FieldError{Field: "Hash", Message: fmt.Sprintf("need Memory ≤ %d KiB, Time ≤ %d, 1 ≤ Parallelism ≤ %d", maxMemory, maxTime, maxLanes)}
	case c.MaxParallelHashes < 1 || c.MaxParallelHashes > 1024:
		return &counterfoil.FieldError{Field: "MaxParallelHashes", Message: "must be 1 to 1024"}
	case c.MaxQueuedHashes < 1 || c.MaxQueuedHashes > 1<<16:
		return &counterfoil.FieldError{Field: "MaxQueuedHashes", Message: "must be 1 to 65536"}
	case c.ResetLifetime < 15*time.Minute || c.ResetLifetime > time.Hour:
		return &counterfoil.FieldError{Field: "ResetLifetime", Message: fmt.Sprintf("%s must be 15m to 1h", c.ResetLifetime)}
	case c.BreachedRequired && c.Breached == nil:
		return &counterfoil.FieldError{Field: "BreachedRequired", Message: "needs Breached"}
	}
	for i, word := range c.ContextWords {
		if len([]rune(word)) < 3 || strings.ContainsAny(word, "\r\n") || len(word) > longestWord {
			return &counterfoil.FieldError{Field: fmt.Sprintf("ContextWords[%d]", i), Message: "must have 3 to 64 characters on one line"}
		}
	}
	return c.Throttle.validate()
}

// storeError passes on what a store said, as "unavailable" unless it is an
// answer that callers act on.
func storeError(doing string, err error) error {
	for _, answer := range []error{
		counterfoil.ErrNotFound, counterfoil.ErrConflict, counterfoil.ErrInvalidCredentials,
		counterfoil.ErrInvalidCursor, context.Canceled, verify.ErrUnavailable, ErrLastPasskey, ErrTooManyPasskeys,
	} {
		if errors.Is(err, answer) {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
	if errors.Is(err, ErrEmailTaken) {
		return fmt.Errorf("%s: %w: %w", doing, counterfoil.ErrConflict, err)
	}
	var field *counterfoil.FieldError
	if errors.As(err, &field) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", verify.ErrUnavailable, doing, err)
}
