package redisstore

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
)

// A session is one string: a head of fixed size, which the scripts read and
// change in place, a body, which only this file reads, and an end.
//
//	 1  version
//	 2  flags: 1 ended
//	 3  revision, grows with each change
//	 7  epoch0
//	15  last active  ┐
//	23  idle timeout │ milliseconds
//	31  expires      │
//	39  created      │
//	47  ended        ┘
//	55  signed out below: what ended it; 0: it was ended by itself
//	63  length of the body
//	67  body: length of the subject (2 bytes), subject, …
//	    reason and actor of the end, a byte of length before each
//
// Numbers are big endian and signed, places count from 1 as in Lua.
const (
	recordVersion = 1
	headSize      = 66
	flagEnded     = 1
	// mostActor is what fits a byte of length.
	mostActor = 255
	// mostSubject is what fits two.
	mostSubject = 1 << 15
)

// record is a session as it is kept.
type record struct {
	counterfoil.Session        // End is the session's own, or settled there after a sign-out
	rev                 uint32 // for compare and swap
	endedBelow          int64  // the sign-out that End is of; 0: none
}

var errRecord = errors.New("is no record of this version")

// encode writes a record. It refuses what would not come back as it is.
func (r *record) encode() ([]byte, error) {
	if len(r.Subject) > mostSubject {
		return nil, &counterfoil.FieldError{Field: "subject", Message: "is too long"}
	}
	b := make([]byte, headSize, 512)
	b[0] = recordVersion
	binary.BigEndian.PutUint32(b[2:], r.rev)
	for i, v := range [...]int64{r.Epoch0, r.LastActiveAt.UnixMilli(), r.IdleTimeout.Milliseconds(), r.ExpiresAt.UnixMilli(), r.CreatedAt.UnixMilli()} {
		binary.BigEndian.PutUint64(b[6+8*i:], uint64(v))
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Subject)))
	b = append(b, r.Subject...)
	b = appendText(b, r.ClientID)
	b = appendText(b, r.ParentID)
	b = binary.AppendVarint(b, r.AuthTime.UnixMilli()-r.CreatedAt.UnixMilli())
	b = append(b, r.SecretHash[:]...)
	b = appendList(b, r.Methods)
	b = appendText(b, r.Device.UserAgent)
	b = appendText(b, r.Device.IP)
	b = appendList(b, r.Roles)
	b = appendList(b, r.Scope)
	extra, err := encodeObject(r.Extra)
	if err != nil {
		return nil, fmt.Errorf("field Extra: %w", err)
	}
	b = appendText(b, extra)
	if k := r.Binding; k != nil {
		b = append(b, k.Key[:]...)
		b = binary.AppendVarint(b, k.RegisteredAt.UnixMilli())
		b = binary.AppendVarint(b, k.Proofs)
	}
	binary.BigEndian.PutUint32(b[62:], uint32(len(b)-headSize))
	if r.End == nil {
		return b, nil
	}
	b[1] |= flagEnded
	binary.BigEndian.PutUint64(b[46:], uint64(r.End.At.UnixMilli()))
	binary.BigEndian.PutUint64(b[54:], uint64(r.endedBelow))
	return appendEnd(b, r.End), nil
}

func appendEnd(b []byte, e *counterfoil.End) []byte {
	for _, text := range []string{string(e.Reason), e.Actor} {
		text = text[:min(len(text), mostActor)]
		b = append(b, byte(len(text)))
		b = append(b, text...)
	}
	return b
}

// readRecord reads the record of the session with the ID.
func readRecord(id string, data []byte) (r record, err error) {
	if len(data) < headSize+2 || data[0] != recordVersion {
		return r, fmt.Errorf("session %s: %w", id, errRecord)
	}
	number := func(at int) int64 { return int64(binary.BigEndian.Uint64(data[at:])) }
	r.ID, r.rev = id, binary.BigEndian.Uint32(data[2:])
	r.Epoch0 = number(6)
	r.LastActiveAt = fromMillis(number(14))
	r.IdleTimeout = time.Duration(number(22)) * time.Millisecond
	r.ExpiresAt = fromMillis(number(30))
	r.CreatedAt = fromMillis(number(38))
	size := int64(binary.BigEndian.Uint32(data[62:]))
	if size > int64(len(data)-headSize) {
		return r, fmt.Errorf("session %s: %w", id, errRecord)
	}
	d := decoder{data: data[headSize : headSize+size]}
	r.Subject = string(d.take(int(d.uint16())))
	r.ClientID, r.ParentID = d.text(), d.text()
	r.AuthTime = fromMillis(number(38) + d.varint())
	copy(r.SecretHash[:], d.take(len(r.SecretHash)))
	r.Methods = d.list()
	r.Device.UserAgent, r.Device.IP = d.text(), d.text()
	r.Roles, r.Scope = d.list(), d.list()
	r.Extra = d.object()
	if d.err == nil && len(d.data) > 0 {
		r.Binding = &counterfoil.Binding{}
		copy(r.Binding.Key[:], d.take(len(r.Binding.Key)))
		r.Binding.RegisteredAt, r.Binding.Proofs = fromMillis(d.varint()), d.varint()
	}
	if d.err == nil && len(d.data) > 0 {
		d.err = errRecord
	}
	if data[1]&flagEnded != 0 {
		r.endedBelow = number(54)
		e := decoder{data: data[headSize+size:], err: d.err}
		r.End = e.end(number(46))
		d.err = e.err
	}
	if d.err != nil {
		return r, fmt.Errorf("session %s: %w", id, d.err)
	}
	return r, nil
}

// A subject is copied from SQL, where it is the truth:
//
//	 1  version
//	 2  flags: 1 disabled, 2 signed out
//	 3  epoch
//	11  signed out below
//	19  signed out at, milliseconds
//	27  reason and actor, a byte of length before each; roles, scope
const (
	subjectVersion = 1
	subjectHead    = 26
	flagDisabled   = 1
	flagSignedOut  = 2
)

func encodeSubject(u *counterfoil.Subject) []byte {
	b := make([]byte, subjectHead, 64)
	b[0] = subjectVersion
	binary.BigEndian.PutUint64(b[2:], uint64(u.Epoch))
	binary.BigEndian.PutUint64(b[10:], uint64(u.SignedOutBelow))
	if u.Disabled {
		b[1] |= flagDisabled
	}
	end := u.SignedOut
	if end == nil {
		end = &counterfoil.End{}
	} else {
		b[1] |= flagSignedOut
		binary.BigEndian.PutUint64(b[18:], uint64(end.At.UnixMilli()))
	}
	b = appendEnd(b, end)
	b = appendList(b, u.Roles)
	return appendList(b, u.Scope)
}

func readSubject(id string, data []byte) (u counterfoil.Subject, err error) {
	if len(data) < subjectHead || data[0] != subjectVersion {
		return u, fmt.Errorf("subject %q: %w", id, errRecord)
	}
	u.ID = id
	u.Epoch = int64(binary.BigEndian.Uint64(data[2:]))
	u.SignedOutBelow = int64(binary.BigEndian.Uint64(data[10:]))
	u.Disabled = data[1]&flagDisabled != 0
	d := decoder{data: data[subjectHead:]}
	end := d.end(int64(binary.BigEndian.Uint64(data[18:])))
	if data[1]&flagSignedOut != 0 {
		u.SignedOut = end
	}
	u.Roles, u.Scope = d.list(), d.list()
	if d.err == nil && len(d.data) > 0 {
		d.err = errRecord
	}
	if d.err != nil {
		return u, fmt.Errorf("subject %q: %w", id, d.err)
	}
	return u, nil
}

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func appendText(b []byte, text string) []byte {
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}

// appendList tells nil from empty.
func appendList(b []byte, list []string) []byte {
	if list == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(list))+1)
	for _, text := range list {
		b = appendText(b, text)
	}
	return b
}

// encodeObject keeps nil apart from empty.
func encodeObject(m map[string]any) (string, error) {
	if m == nil {
		return "", nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(m); err != nil {
		return "", err
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// decoder takes values from left to right and keeps the first error.
type decoder struct {
	data []byte
	err  error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.data) {
		d.err = errRecord
		return nil
	}
	part := d.data[:n]
	d.data = d.data[n:]
	return part
}

func (d *decoder) uint16() uint16 {
	b := d.take(2)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.data)
	if d.err != nil || n <= 0 {
		d.err = errRecord
		return 0
	}
	d.data = d.data[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.data)
	if d.err != nil || n <= 0 {
		d.err = errRecord
		return 0
	}
	d.data = d.data[n:]
	return v
}

func (d *decoder) text() string {
	n := d.uvarint()
	if n > uint64(len(d.data)) {
		d.err = errRecord
		return ""
	}
	return string(d.take(int(n)))
}

func (d *decoder) list() []string {
	n := d.uvarint()
	switch {
	case n == 0:
		return nil
	case n-1 > uint64(len(d.data)): // each takes a byte at least
		d.err = errRecord
		return nil
	}
	list := make([]string, 0, n-1)
	for range n - 1 {
		list = append(list, d.text())
	}
	return list
}

func (d *decoder) object() (m map[string]any) {
	text := d.text()
	if text == "" || d.err != nil {
		return nil
	}
	j := json.NewDecoder(bytes.NewReader([]byte(text)))
	j.UseNumber()
	if err := j.Decode(&m); err != nil {
		d.err = fmt.Errorf("field Extra: %w", err)
	}
	return m
}

// end reads reason and actor.
func (d *decoder) end(at int64) *counterfoil.End {
	text := func() string {
		n := d.take(1)
		if n == nil {
			return ""
		}
		return string(d.take(int(n[0])))
	}
	return &counterfoil.End{At: fromMillis(at), Reason: counterfoil.Reason(text()), Actor: text()}
}

// rounded is s as it comes back: times to the millisecond.
func rounded(s counterfoil.Session) counterfoil.Session {
	for _, t := range []*time.Time{&s.CreatedAt, &s.LastActiveAt, &s.ExpiresAt, &s.AuthTime} {
		*t = fromMillis(t.UnixMilli())
	}
	s.IdleTimeout = s.IdleTimeout.Truncate(time.Millisecond)
	if s.Binding != nil {
		b := *s.Binding
		b.RegisteredAt = fromMillis(b.RegisteredAt.UnixMilli())
		s.Binding = &b
	}
	return s
}
