package directory

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil"
)

// Passkey is a discoverable WebAuthn credential of a user. The private key
// never leaves the user's devices.
type Passkey struct {
	ID         string   // the credential id in base64url, up to 1364 characters
	PublicKey  []byte   // COSE key (RFC 9052)
	Name       string   // the user's name for it
	Transports []string // how browsers reach it; nil when unknown
	// SignCount is the highest count of uses that the authenticator told;
	// passkeys that are synchronised between devices stay at 0.
	SignCount uint32
	// BackupEligible says that it can be synchronised, which never changes;
	// BackedUp that it is.
	BackupEligible bool
	BackedUp       bool
	CreatedAt      time.Time
	LastUsedAt     time.Time // zero: not used yet
}

// ErrLastPasskey refuses to remove the last way in of a user who has no password.
var ErrLastPasskey = errors.New("it is the user's last way to sign in")

// ErrTooManyPasskeys says that the user has the most passkeys that are kept.
var ErrTooManyPasskeys = fmt.Errorf("a user can have %d passkeys at most", maxPasskeys)

// ErrPasskeysOff says that this installation has no host name to bind
// passkeys to; see [RelyingParty].
var ErrPasskeysOff = errors.New("passkeys are off: the issuer's host is an IP address, and Config.RelyingParty is not set")

// ErrPasskeyRefused is the one answer to a passkey that is unknown, was
// removed, does not verify, or is of a disabled user. It wraps
// [counterfoil.ErrInvalidCredentials].
var ErrPasskeyRefused = fmt.Errorf("%w: this passkey is not taken", counterfoil.ErrInvalidCredentials)

// passkeyRefused keeps the reason for the logs.
func passkeyRefused(why string) error { return fmt.Errorf("%w: %s", ErrPasskeyRefused, why) }

// PasskeyWasRemoved is the reason of sessions that ended because a passkey of
// the user was removed.
const PasskeyWasRemoved counterfoil.Reason = "passkey_removed"

// passkeyMethods are the amr of a passkey (RFC 8176): a key that the device
// proved to have, the user present, and, since user verification is required,
// a second factor that unlocked it. Whether hardware holds the key (hwk) or
// not (swk) nobody can tell without attestation, which is not asked for.
var passkeyMethods = []string{"pop", "user", "mfa"}

const (
	// maxPasskeys keeps the user's row small.
	maxPasskeys     = 20
	maxPasskeyName  = 64
	maxCredentialID = 1023 // WebAuthn Level 3, section 4
	minCredentialID = 16   // section 4: at least 100 bits of entropy
	maxPublicKey    = 1024 // RSA with 4096 bits takes some 530
)

func (u *User) passkey(id string) (*Passkey, bool) {
	i := slices.IndexFunc(u.Passkeys, func(p Passkey) bool { return p.ID == id })
	if i < 0 {
		return nil, false
	}
	return &u.Passkeys[i], true
}

// passkeyName is the name as it is kept, or the first free "Passkey N".
func passkeyName(name string, taken []Passkey) (string, error) {
	name = strings.TrimSpace(name)
	if len(name) > maxPasskeyName || !printable(name) {
		return "", &counterfoil.FieldError{Field: "name", Message: "must be at most 64 bytes of printable text"}
	}
	for n := 1; name == ""; n++ {
		name = fmt.Sprintf("Passkey %d", n)
		if slices.ContainsFunc(taken, func(p Passkey) bool { return p.Name == name }) {
			name = ""
		}
	}
	return name, nil
}

func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// knownTransports are kept; others are of no use to a browser.
var knownTransports = []string{"ble", "hybrid", "internal", "nfc", "smart-card", "usb"}

func keptTransports(given []string) (kept []string) {
	for _, t := range knownTransports {
		if slices.Contains(given, t) {
			kept = append(kept, t)
		}
	}
	return kept
}
