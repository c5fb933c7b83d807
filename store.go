package counterfoil

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/verify"
)

// Sentinels that stores return, wrapped or not.
var (
	// ErrNotFound says that there is no such row.
	ErrNotFound = errors.New("not found")
	// ErrInvalidCursor says that the field `after` of a list is not what the
	// page before returned as next.
	ErrInvalidCursor = errors.New("after: not a cursor of this list")
	// ErrStoreUnavailable says that the store could not be asked: no
	// connection, no room, closed. What the call was to change may or may not
	// have happened.
	ErrStoreUnavailable = errors.New("the store is unavailable")
	// ErrStoreMoving says that writes are refused for the moment in which
	// everything is moved to another database. It wraps ErrStoreUnavailable:
	// nothing was changed, and the call can be repeated.
	ErrStoreMoving = fmt.Errorf("%w for writes: it is being moved to another database", ErrStoreUnavailable)
	// ErrStoreMoved says that everything is in another database, or that this
	// one is not filled yet. It wraps ErrStoreUnavailable. Nobody mints from it.
	ErrStoreMoved = fmt.Errorf("%w: everything is in another database", ErrStoreUnavailable)
	// ErrSignedOutMeanwhile is returned by [SessionStore.Insert] when the
	// subject was signed out everywhere after the epoch of the sign-in.
	ErrSignedOutMeanwhile = errors.New("the subject was signed out everywhere while signing in")
	// ErrSubjectDisabled is returned by [SessionStore.Insert] for a disabled subject.
	ErrSubjectDisabled = errors.New("the subject is disabled")
	// ErrNotTold says that a change is committed, feed log included, but that
	// the store of the sessions could not be told yet. It will hear of it as
	// soon as it can be reached; until then nothing is minted that the change
	// forbids, by nodes that follow the log. It comes with [ErrStoreUnavailable].
	ErrNotTold = errors.New("the change is committed, and the store of the sessions will hear of it as soon as it can be reached")
	// ErrNoTransactions is returned by [Store.InTx] where there is no SQL.
	ErrNoTransactions = errors.New("this store has no SQL transactions to join")
)

// Revocation is an entry of the feed log: which access tokens are refused
// from now on though they have not expired.
type Revocation = verify.Revocation

// Store is everything an [Authority] keeps. Package storetest is its
// executable specification. All methods are safe for concurrent use.
type Store interface {
	// Open checks that the schema is there and migrates it where the store
	// was told to. A foreign or newer schema is an error and stays untouched.
	Open(ctx context.Context) error
	// Now asks the store for its clock; it fails when the store is unreachable.
	Now(ctx context.Context) (time.Time, error)
	Sessions() SessionStore
	Feed() FeedLog
	Catalog() Catalog
	// InTx returns the sessions as seen and changed inside the caller's own
	// transaction. Nothing it does is visible before tx commits.
	InTx(tx *sql.Tx) (SessionStore, error)
	// Committed is called after a transaction given to InTx was committed,
	// with what the calls in it reported. When it returns, no later Snapshot
	// shows what they ended alive, wherever the sessions are kept. [ErrNotTold]
	// when they are where they cannot be reached.
	Committed(ctx context.Context, revocations ...Revocation) error
	// Close ends background work and flushes; it leaves the database that
	// the caller brought open.
	Close() error
}

// SessionStore keeps sessions and subjects. Each method is atomic and, when
// it returns nil, durable. Each entry of the feed log that a method reports is
// written in the same transaction as the change it reports, after the session
// or subject row was changed. A subject without a row behaves as one whose
// epoch is higher than every feed position ever given and every epoch that
// was ever reported; the first write makes the row so.
type SessionStore interface {
	// Snapshot reads one session from the primary, in one statement. ErrNotFound when there is none.
	Snapshot(ctx context.Context, id string) (Snapshot, error)
	// Insert adds a session, and its subject's row when that is new. With
	// s.Epoch0 zero the subject's present epoch is taken. It returns the
	// snapshot of the moment of the insert. ErrSignedOutMeanwhile when
	// Epoch0 is below SignedOutBelow, ErrSubjectDisabled when disabled. An
	// Epoch0 above the subject's epoch counts as the present one. A session
	// whose ParentID has ended is refused (ErrSessionRevoked); ErrConflict
	// when the ID is taken.
	Insert(ctx context.Context, s Session) (Snapshot, error)
	// Update changes one session by compare and swap: fn sees the present
	// row and may be called again when another update came between. With
	// stale true the subject's epoch grows by one in the same transaction,
	// so that access tokens minted before are answered with token_stale.
	// fn's error ends the update and is returned as it is. The ID, Subject,
	// ClientID, ParentID, CreatedAt, Epoch0 and End of a session do not change here.
	Update(ctx context.Context, id string, retain time.Duration, fn func(*Session) (stale bool, err error)) (Session, []Revocation, error)
	// End ends one session and those derived from it, one feed entry each.
	// Ending an ended session changes nothing and is no error.
	End(ctx context.Context, r EndRequest) (Ended, error)
	// Advance raises the subject's epoch: everywhere, others, or rights only.
	// A subject without a row gets one.
	Advance(ctx context.Context, a Advance) (Advanced, error)
	// Subject reads a subject. One without a row is answered as described
	// above, without making the row.
	Subject(ctx context.Context, id string) (Subject, error)
	// List lists sessions, newest first, End resolved.
	List(ctx context.Context, q ListQuery) (sessions []Session, next string, err error)
	// Touch records use of sessions, in one transaction: LastActiveAt never
	// goes back, ended sessions stay as they are, unknown ids are skipped.
	Touch(ctx context.Context, touches []Touch) error
	// Purge deletes at most limit sessions that ended or expired before the
	// given time, and returns how many it deleted. A time after the store's
	// clock counts as the store's, so that no wrong clock deletes what lives.
	Purge(ctx context.Context, before time.Time, limit int) (int, error)
}

// EndRequest says which session to end.
type EndRequest struct {
	ID      string
	Subject string // when not empty, the session must be this subject's, else ErrNotFound
	End     End
	Retain  time.Duration // how long the feed entry is kept
}

// Ended is what [SessionStore.End] did.
type Ended struct {
	Session     Session
	Changed     bool
	Revocations []Revocation
}

// Advance raises a subject's epoch by one.
type Advance struct {
	Subject string
	// SignOut ends every session of the subject (SignedOutBelow becomes the
	// new epoch), for the reason in End. Without it only rights changed.
	SignOut bool
	End     End
	// Keep, when set with SignOut, is the one session that goes on if it had
	// not ended: its Epoch0 becomes the new epoch in the same transaction.
	// Another subject's session is never kept.
	Keep *Keep
	// Rights, when set, replaces the subject's in the same transaction.
	Rights *Rights
	Retain time.Duration // how long the feed entry is kept
}

// Keep names the session that survives a sign-out of all others. A non-zero
// SecretHash replaces the secret (the predecessor is dead at commit); a
// non-zero AuthTime and non-nil Methods record the new authentication.
type Keep struct {
	ID         string
	SecretHash opaque.Hash
	AuthTime   time.Time
	Methods    []string
}

// Advanced is what [SessionStore.Advance] did. Kept is nil when Keep was not
// given or that session had ended.
type Advanced struct {
	Subject    Subject
	Kept       *Session
	Revocation Revocation
}

// ListQuery selects sessions. Empty fields select all.
type ListQuery struct {
	Subject  string
	ClientID string
	ActiveAt time.Time // when not zero, only sessions active at this time
	After    string    // the next of the page before; opaque
	Limit    int       // 1 … 1000
}

// Touch is one coalesced use of a session.
type Touch struct {
	ID string
	At time.Time
}

// FeedLog is the ordered log of revocations. Only the methods of
// [SessionStore] and [Catalog] write it.
type FeedLog interface {
	// Read returns entries above the position, in order, at most limit.
	Read(ctx context.Context, after int64, limit int) ([]Revocation, error)
	// Head returns the timeline and the highest position ever given.
	Head(ctx context.Context) (FeedHead, error)
	// Tail follows the log above the position: 0 for everything retained, or
	// the Resolved of an earlier tail. ctx bounds this call only.
	Tail(ctx context.Context, after int64) (Tail, error)
	// Prune deletes at most limit entries whose Until is before the given
	// time, and before the store's own. Until is counted from the statement
	// that wrote an entry, which its transaction may commit much later: the
	// given time has to leave a margin for each tail to see it. Positions are
	// never given again; key entries never leave.
	Prune(ctx context.Context, before time.Time, limit int) (int, error)
	// Record writes an entry about what the store itself does not know, and keeps
	// it for at least so long: the end of a session that the store has lost,
	// while access tokens of it live. All other entries are written with what
	// they report. It returns the entry with its position.
	Record(ctx context.Context, e Revocation, retain time.Duration) (Revocation, error)
	// Retain has entries kept for at least d, whoever writes them and for
	// whatever shorter time: the greatest d that was ever asked for is recorded
	// in the store and holds for everybody from then on. unsettled is how long,
	// from the return on, changes that were under way before may still commit
	// entries that are kept for less; 0 where there can be none.
	Retain(ctx context.Context, d time.Duration) (unsettled time.Duration, err error)
}

// Tail reads the feed log as it grows, whoever writes it. Next and Close are
// for one goroutine, Wake is for any.
type Tail interface {
	// Next reads the log and returns what it has not returned yet. The first
	// call does not wait; later ones wait until something changes, at most
	// for the store's poll interval, and then return without entries, which
	// tells that there were none. The interval is 10 ms, or as long as it
	// likes for a store that hears of every change in any process. Each read
	// is bounded by itself, so that a lost connection ends in an error.
	// After an error the tail is over: close it, and open another one at the
	// last Resolved.
	Next(ctx context.Context) (FeedBatch, error)
	// Wake ends a wait of Next, the present one or the one to come. After
	// Close it does nothing.
	Wake()
	// Close frees what the tail holds.
	Close() error
}

// FeedBatch is what a [Tail] found. Its memory is the caller's.
type FeedBatch struct {
	// Entries may come in any order, late, and more than once; none is left out.
	Entries []Revocation
	// Resolved says that every entry at or below it that was ever committed,
	// or ever will be, is in this batch or an earlier one, unless it was
	// pruned. It never falls within a timeline.
	Resolved int64
	Timeline int64
	// Cut, when not 0, says that positions above it may have been given before,
	// to entries that are lost: the log went back, or this timeline began when
	// a standby was promoted that had got no more.
	Cut int64
	// KeyVersion is that of the key ring, read no earlier than ReadAt.
	KeyVersion int64
	// Retain is the greatest that [FeedLog.Retain] was asked for, 0 when it never was.
	Retain time.Duration
	// ReadAt is [time.Now] of this process, with its monotonic reading, from
	// before the read began: what was committed until then has been returned.
	// Zero when more is to come at once: the next call does not wait.
	ReadAt time.Time
}

// FeedHead is a point in the feed log.
type FeedHead struct {
	Timeline int64
	Position int64
}

// Catalog keeps signing keys and API keys.
type Catalog interface {
	// Keys reads the key ring; an empty one (Version 0) before the first key.
	Keys(ctx context.Context) (KeyRing, error)
	// UpdateKeys changes the ring by compare and swap on its version, which
	// grows by one with each change; fn may be called again. A key that fn
	// turns to KeyRevoked gets its feed entry in the same transaction.
	UpdateKeys(ctx context.Context, retain time.Duration, fn func(*KeyRing) error) (KeyRing, []Revocation, error)
	// CreateAPIKey adds an API key.
	CreateAPIKey(ctx context.Context, k APIKey) error
	// APIKey reads one. ErrNotFound when there is none.
	APIKey(ctx context.Context, id string) (APIKey, error)
	// UpdateAPIKey changes one by compare and swap. ErrNotFound when there is none.
	UpdateAPIKey(ctx context.Context, id string, fn func(*APIKey) error) (APIKey, error)
	// APIKeys lists all, newest first.
	APIKeys(ctx context.Context) ([]APIKey, error)
}

// KeyRing holds the signing keys, private halves sealed.
type KeyRing struct {
	Version int64 // monotone; 0 is the empty ring
	Keys    []KeyRecord
}

// KeyState is the stage of life of a signing key.
type KeyState string

// The life of a key: next is published before it signs, active signs,
// retiring verifies until its last token is dead, revoked verifies no more.
const (
	KeyNext     KeyState = "next"
	KeyActive   KeyState = "active"
	KeyRetiring KeyState = "retiring"
	KeyRevoked  KeyState = "revoked"
)

// KeyRecord is one signing key at rest.
type KeyRecord struct {
	ID        string // the kid: RFC 7638 thumbprint, never used again
	Algorithm string
	State     KeyState
	Public    []byte // PKIX, DER
	Sealed    []byte // PKCS #8, sealed; empty once revoked or gone
	CreatedAt time.Time
	// Until is when a retiring key leaves the published set.
	Until time.Time
}

// APIKey authenticates a backend or a verifier. Only the hash of its secret is kept.
type APIKey struct {
	ID         string
	Name       string
	ClientID   string
	Scopes     []string
	CreatedAt  time.Time
	ExpiresAt  time.Time // zero: does not expire
	LastUsedAt time.Time // coalesced to a minute
	RevokedAt  time.Time // zero while it is good
	SecretHash opaque.Hash
}
