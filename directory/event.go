package directory

import (
	"context"
	"time"
)

// EventKind says what happened to an account.
type EventKind string

const (
	PasskeyAdded   EventKind = "passkey_added"
	PasskeyRemoved EventKind = "passkey_removed"
	// PasskeyCounterWentBack: a passkey whose authenticator counts its uses
	// was used with a lower count than before. It may have been copied, or
	// the authenticator was reset; the sign-in went on.
	PasskeyCounterWentBack EventKind = "passkey_counter_went_back"
)

// Event is what the user should hear of, by mail for instance: somebody else
// may have done it.
type Event struct {
	Kind    EventKind
	User    User // without the hashes
	Passkey Passkey
	Actor   string // "user", or who removed it
	At      time.Time
}

// notify tells [Config.Notify], after the change was committed.
func (d *Directory) notify(ctx context.Context, kind EventKind, u User, p Passkey, actor string) {
	if d.cfg.Notify != nil {
		d.cfg.Notify(context.WithoutCancel(ctx), Event{Kind: kind, User: shown(u), Passkey: p, Actor: actor, At: d.auth.Now()})
	}
}
