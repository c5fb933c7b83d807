// Package revoked holds what a verifier knows of revocations: the entries of
// the feed with their compact JSON form, and the table that answers which
// access tokens are refused though they have not expired.
package revoked

import (
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// Kind says what an entry revokes.
type Kind byte

// The kinds, with the letters they have on the wire and in stores.
const (
	Session Kind = 's' // all tokens of the session ID
	Subject Kind = 'u' // tokens of the subject ID below an epoch
	Key     Kind = 'k' // all tokens signed by the key ID
	Token   Kind = 'j' // the one token whose jti is ID
	Client  Kind = 'c' // tokens of the client ID below an epoch

	// Foreign stands for a kind, or a form of one, that this version does not
	// know: ID is the whole entry as it came, to be passed on. Tables pass over it.
	Foreign Kind = '?'
)

// String returns the letter.
func (k Kind) String() string { return string(rune(k)) }

// Known reports whether this version acts on entries of the kind.
func (k Kind) Known() bool {
	switch k {
	case Session, Subject, Key, Token, Client:
		return true
	}
	return false
}

// Entry is one row of the feed log: it says which access tokens are refused
// from now on though they have not expired.
type Entry struct {
	// Kind says what ID names.
	Kind Kind
	// ID is the sid, subject, kid, jti or client_id, never empty.
	ID string
	// StaleBelow, for Subject: tokens with a lower epoch are answered with
	// token_stale, and the client refreshes. 0 for none.
	StaleBelow int64
	// RevokedBelow, for Subject and Client: tokens with a lower epoch are
	// answered with token_revoked. 0 for none.
	RevokedBelow int64
	// Except, for Subject with RevokedBelow: the one session that was kept.
	// Its older tokens are only stale. Empty for none.
	Except string
	// Until is when the last token that the entry can concern is dead, by
	// the clock of whoever made the entry. It is kept to the second, rounded
	// up. Zero means never; entries of kind Key are kept for good whatever it says.
	Until time.Time
	// Position is the entry's id in the feed log, 0 when it is from no log.
	// It is not part of the JSON form, since the stream tells it elsewhere.
	Position int64
}

// AppendJSON appends the compact form, for instance ["s","<sid>",1763770000].
func (e Entry) AppendJSON(dst []byte) []byte {
	if e.Kind == Foreign {
		return append(dst, e.ID...)
	}
	dst = append(dst, '[')
	dst = strictjson.AppendString(dst, e.Kind.String())
	dst = append(dst, ',')
	dst = strictjson.AppendString(dst, e.ID)
	switch e.Kind {
	case Subject:
		dst = append(dst, ',')
		dst = strconv.AppendInt(dst, e.StaleBelow, 10)
		dst = append(dst, ',')
		dst = strconv.AppendInt(dst, e.RevokedBelow, 10)
	case Client:
		dst = append(dst, ',')
		dst = strconv.AppendInt(dst, e.RevokedBelow, 10)
	}
	dst = append(dst, ',')
	dst = strconv.AppendInt(dst, seconds(e.Until), 10)
	if e.Kind == Subject && e.Except != "" {
		dst = append(dst, ',')
		dst = strictjson.AppendString(dst, e.Except)
	}
	return append(dst, ']')
}

// MarshalJSON returns the compact form. An ID that is empty or not UTF-8 is
// an error: it could not be read back as the same.
func (e Entry) MarshalJSON() ([]byte, error) {
	if e.ID == "" || !utf8.ValidString(e.ID) || !utf8.ValidString(e.Except) {
		return nil, fmt.Errorf("revocation of kind %q: the id must be text and not empty", e.Kind)
	}
	return e.AppendJSON(nil), nil
}

// UnmarshalJSON reads the compact form of a known kind.
func (e *Entry) UnmarshalJSON(data []byte) error {
	got, known, err := decode(data)
	if err != nil {
		return err
	}
	if !known {
		return fmt.Errorf("revocation of unknown kind %q", got.Kind)
	}
	*e = got
	return nil
}

// Encode returns the entries as one JSON array.
func Encode(entries []Entry) []byte {
	dst := []byte{'['}
	for i, e := range entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = e.AppendJSON(dst)
	}
	return append(dst, ']')
}

// Decode reads a JSON array of entries. Entries of kinds that this version
// does not know are left out and counted; members that a later version appends
// to a known kind are passed over. Anything else that is wrong fails the whole.
func Decode(data []byte) (entries []Entry, skipped int, err error) {
	entries, foreign, err := DecodeAll(data)
	return entries, len(foreign), err
}

// DecodeAll is Decode that also returns what it does not know, as entries of
// kind Foreign.
func DecodeAll(data []byte) (entries, foreign []Entry, err error) {
	err = strictjson.Array(data, func(element []byte) error {
		e, known, err := decode(element)
		if err != nil {
			return err
		}
		if known {
			entries = append(entries, e)
		} else {
			foreign = append(foreign, Entry{Kind: Foreign, ID: string(element)})
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("revocations: %w", err)
	}
	return entries, foreign, nil
}

// fields is the number of members that each kind has at least.
var fields = map[Kind]int{Session: 3, Key: 3, Token: 3, Client: 4, Subject: 5}

func decode(data []byte) (e Entry, known bool, err error) {
	var parts [][]byte
	err = strictjson.Array(data, func(element []byte) error {
		parts = append(parts, element)
		return nil
	})
	if err != nil {
		return Entry{}, false, err
	}
	if len(parts) == 0 {
		return Entry{}, false, errors.New("an entry is empty")
	}
	kind, err := strictjson.String(parts[0])
	if err != nil {
		return Entry{}, false, fmt.Errorf("the kind of an entry: %w", err)
	}
	if len(kind) != 1 || !Kind(kind[0]).Known() {
		if kind != "" {
			e.Kind = Kind(kind[0])
		}
		return e, false, nil
	}
	e.Kind = Kind(kind[0])
	if len(parts) < fields[e.Kind] {
		return Entry{}, false, fmt.Errorf("an entry of kind %q has %d members", kind, len(parts))
	}
	r := reader{parts: parts[1:]}
	e.ID = r.text()
	switch e.Kind {
	case Subject:
		e.StaleBelow = r.number()
		e.RevokedBelow = r.number()
	case Client:
		e.RevokedBelow = r.number()
	}
	e.Until = fromSeconds(r.number())
	if e.Kind == Subject && len(r.parts) > 0 {
		e.Except = r.text()
	}
	if r.err == nil && e.ID == "" {
		r.err = errors.New("the id is empty")
	}
	if r.err != nil {
		return Entry{}, false, fmt.Errorf("an entry of kind %q: %w", kind, r.err)
	}
	return e, true, nil
}

// reader takes members one by one and keeps the first error.
type reader struct {
	parts [][]byte
	err   error
}

func (r *reader) next() []byte {
	part := r.parts[0]
	r.parts = r.parts[1:]
	return part
}

func (r *reader) text() string {
	s, err := strictjson.String(r.next())
	if r.err == nil {
		r.err = err
	}
	return s
}

func (r *reader) number() int64 {
	n, err := strictjson.Int(r.next())
	if err == nil && n < 0 {
		err = errors.New("a number is negative")
	}
	if r.err == nil {
		r.err = err
	}
	return n
}

// maxSeconds is the last second of the year 9999.
const maxSeconds = 253402300799

// seconds rounds up, so that no entry leaves early by being written down.
func seconds(t time.Time) int64 {
	if t.IsZero() || t.Unix() < 0 {
		return 0
	}
	s := t.Unix()
	if t.Nanosecond() > 0 {
		s++
	}
	return min(s, maxSeconds)
}

func fromSeconds(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(min(s, maxSeconds), 0).UTC()
}
