package directory

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/counterfoil/counterfoil"
)

// Throttle sets how failed attempts slow down further ones. Zero limits mean
// the defaults. Refreshing a session is never counted here.
//
// Nobody is locked out: from networks where an account signed in before, only
// the account's own failures there count, whatever strangers do elsewhere.
// Who sits behind the very same address as a user, and hammers the account,
// can slow that user to one try in Pair.Slowest; a password-reset link opens
// the address again.
type Throttle struct {
	// Pair counts one account from one address (IPv6: one /64).
	// Default 5, then slower up to 15 minutes.
	Pair Limit
	// Account counts one account from all networks where it never signed in.
	// Default 20, up to 1 hour: a botnet gets some 30 guesses at once and 24 a day.
	Account Limit
	// Network counts all accounts from one address (IPv6: one /64), except
	// where they signed in before. Default 100, up to 1 minute. A first
	// success from there takes back five failures: an office recovers.
	Network Limit
	// Range is like Network for the neighbourhood: IPv4 /24, IPv6 /48.
	// Default 500, up to 10 seconds.
	Range Limit
	// SignUp counts sign-ups from one address, failed or not. Default 50, up
	// to 1 minute.
	SignUp Limit
	// Ceremony counts passkey ceremonies that were begun from one address,
	// finished or not: each is kept for five minutes. Default 1000, then one a
	// second.
	Ceremony Limit
	// Session counts wrong passwords at step-up and password change in one
	// session; whoever stole it guesses no faster. Default 5, up to 15 minutes.
	Session Limit
	// Remember is for how long a network where an account signed in counts
	// as known; default 90 days.
	Remember time.Duration
}

func (t Throttle) withDefaults() Throttle {
	fill := func(l *Limit, free int, slowest time.Duration) {
		if *l == (Limit{}) {
			*l = Limit{free, slowest}
		}
	}
	fill(&t.Pair, 5, 15*time.Minute)
	fill(&t.Account, 20, time.Hour)
	fill(&t.Network, 100, time.Minute)
	fill(&t.Range, 500, 10*time.Second)
	fill(&t.SignUp, 50, time.Minute)
	fill(&t.Ceremony, 1000, time.Second)
	fill(&t.Session, 5, 15*time.Minute)
	if t.Remember == 0 {
		t.Remember = 90 * 24 * time.Hour
	}
	return t
}

func (t Throttle) validate() error {
	for _, l := range []struct {
		field string
		limit Limit
	}{
		{"Throttle.Pair", t.Pair}, {"Throttle.Account", t.Account}, {"Throttle.Network", t.Network},
		{"Throttle.Range", t.Range}, {"Throttle.SignUp", t.SignUp},
		{"Throttle.Ceremony", t.Ceremony}, {"Throttle.Session", t.Session},
	} {
		if err := l.limit.validate(l.field); err != nil {
			return err
		}
	}
	if t.Remember < time.Hour {
		return &counterfoil.FieldError{Field: "Throttle.Remember", Message: "must be at least 1h"}
	}
	return nil
}

// forgivenBySuccess is how many failures of its network the first success of
// an account there takes back. An attacker has no supply of such successes.
const forgivenBySuccess = 5

// network is where an attempt comes from; zero when that is not known.
type network struct {
	host  string // IPv4 address, IPv6 /64
	wider string // IPv4 /24, IPv6 /48
}

func networkOf(ip string) network {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return network{}
	}
	addr = addr.Unmap().WithZone("")
	host, wider := 32, 24
	if addr.Is6() {
		host, wider = 64, 48
	}
	return network{prefix(addr, host), prefix(addr, wider)}
}

func prefix(addr netip.Addr, bits int) string {
	p, err := addr.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}

// throttleKey names a counter. Hashed for its length, not for secrecy: an
// address can be found by trying all of them.
func throttleKey(kind string, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(binary.AppendUvarint(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
	return kind + ":" + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
}

// throttle keeps the counters in the store, so that all nodes share one budget.
type throttle struct {
	Throttle
	store Store
	now   func() time.Time
	log   *slog.Logger
}

// attempt is one attempt that was let through. It was counted as a failure
// already, before the slow hash, so that a burst of parallel attempts cannot
// pass on one reading of the counters.
type attempt struct {
	throttle *throttle
	counts   []count
	// known is the key of the mark that the account signed in from here;
	// empty where that is not kept.
	known    string
	wasKnown bool
}

// count is one counter that an attempt goes into.
type count struct {
	key     string
	limit   Limit
	always  bool // counted also where the account is known; ended by a success
	forgive int  // how many earlier failures a success takes back
	counted bool
	waits   time.Time // the NotBefore that this attempt set
}

func (t *throttle) signIn(ctx context.Context, account string, from network) (*attempt, error) {
	a := &attempt{throttle: t, counts: []count{
		{key: throttleKey("pair", account, from.host), limit: t.Pair, always: true},
		{key: throttleKey("account", account), limit: t.Account},
	}}
	if from != (network{}) {
		a.known = throttleKey("known", account, from.host)
		a.counts = append(a.counts,
			count{key: throttleKey("network", from.host), limit: t.Network, forgive: forgivenBySuccess},
			count{key: throttleKey("range", from.wider), limit: t.Range, forgive: forgivenBySuccess})
	}
	return a, a.begin(ctx)
}

func (t *throttle) signUp(ctx context.Context, from network) error {
	if from == (network{}) {
		return nil
	}
	a := &attempt{throttle: t, counts: []count{{key: throttleKey("signup", from.host), limit: t.SignUp, always: true}}}
	return a.begin(ctx)
}

func (t *throttle) ceremony(ctx context.Context, from network) error {
	if from == (network{}) {
		return nil
	}
	a := &attempt{throttle: t, counts: []count{{key: throttleKey("ceremony", from.host), limit: t.Ceremony, always: true}}}
	return a.begin(ctx)
}

func (t *throttle) inSession(ctx context.Context, sid string) (*attempt, error) {
	a := &attempt{throttle: t, counts: []count{{key: throttleKey("session", sid), limit: t.Session, always: true}}}
	return a, a.begin(ctx)
}

// welcome opens the way for an account whose user just proved who they are by
// a reset link.
func (t *throttle) welcome(ctx context.Context, account string, from network) {
	if from == (network{}) {
		return
	}
	a := &attempt{
		throttle: t, known: throttleKey("known", account, from.host),
		counts: []count{{key: throttleKey("pair", account, from.host), limit: t.Pair, always: true}},
	}
	a.succeeded(ctx)
}

func (a *attempt) keys() []string {
	keys := make([]string, 0, len(a.counts)+1)
	for _, c := range a.counts {
		keys = append(keys, c.key)
	}
	if a.known != "" {
		keys = append(keys, a.known)
	}
	return keys
}

// change runs fn over the counters in the store; mark is that of a known network, or nil.
func (a *attempt) change(ctx context.Context, fn func(counters []Counter, mark *Counter, now time.Time) error) error {
	return a.throttle.store.Throttle(ctx, a.keys(), func(all []Counter) error {
		// Whole milliseconds come back from every store as they were.
		now := a.throttle.now().Truncate(time.Millisecond)
		if a.known == "" {
			return fn(all, nil, now)
		}
		return fn(all[:len(a.counts)], &all[len(a.counts)], now)
	})
}

// begin counts the attempt, or refuses it with [*counterfoil.RateLimitedError].
// Refused attempts are not counted: they were not looked at.
func (a *attempt) begin(ctx context.Context) error {
	err := a.change(ctx, func(counters []Counter, mark *Counter, now time.Time) error {
		a.wasKnown = mark != nil && mark.ExpiresAt.After(now)
		var wait time.Duration
		for i := range a.counts {
			c := &a.counts[i]
			c.counted = c.always || !a.wasKnown
			if c.counted {
				wait = max(wait, counters[i].NotBefore.Sub(now))
			}
		}
		if wait > 0 {
			return &counterfoil.RateLimitedError{RetryAfter: max(wait, firstWait)}
		}
		for i := range a.counts {
			if c := &a.counts[i]; c.counted {
				c.limit.add(&counters[i], now)
				c.waits = counters[i].NotBefore
			}
		}
		return nil
	})
	var limited *counterfoil.RateLimitedError
	if err != nil && !errors.As(err, &limited) {
		return storeError("count attempt", err)
	}
	return err
}

// cancelled takes back an attempt that never came to the comparison.
func (a *attempt) cancelled(ctx context.Context) {
	a.settle(ctx, func(counters []Counter, _ *Counter, now time.Time) error {
		for i, c := range a.counts {
			if c.counted {
				c.limit.takeBack(&counters[i], 1, c.waits, now)
			}
		}
		return nil
	})
}

// succeeded takes the attempt back, ends the failures of the account from
// here and remembers the network.
func (a *attempt) succeeded(ctx context.Context) {
	a.settle(ctx, func(counters []Counter, mark *Counter, now time.Time) error {
		for i, c := range a.counts {
			switch {
			case c.always:
				c.limit.set(&counters[i], 0, 0, now)
			case c.counted:
				c.limit.takeBack(&counters[i], 1+c.forgive, c.waits, now)
			}
		}
		// Half way through is early enough: most sign-ins write no mark.
		if remember := a.throttle.Remember; mark != nil && mark.ExpiresAt.Sub(now) < remember/2 {
			mark.Failures, mark.NotBefore, mark.ExpiresAt = 0, time.Time{}, now.Add(remember)
		}
		return nil
	})
}

// settle writes what became of an attempt, also when its caller has gone. If
// it cannot, the attempt stays counted, which time forgives.
func (a *attempt) settle(ctx context.Context, fn func([]Counter, *Counter, time.Time) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := a.change(ctx, fn); err != nil {
		a.throttle.log.WarnContext(ctx, "an attempt stays counted as failed", "error", err)
	}
}
