// Package feed is the stream of revocations between an authority and its
// verifiers: server-sent events with compact JSON, an encoder, a bounded
// decoder, and the server.
//
// The frames:
//
//	id: 7.10422
//	event: live
//	data: [["s","<sid>",1763770000]]
//
//	event: beat
//	data: {"age_ms":12,"now":1763770000.123456,"keys":41,"node":"a7"}
//
// "snapshot" is as "live", but says all that is retained. A long list is cut
// into several frames, of which the last alone carries the id: entries are
// applied as they come, and a reader has come as far as the last id it saw.
package feed

import (
	"fmt"
	"strconv"
	"strings"
)

// Position is a point in the feed: every entry of the timeline at or below
// Seq has been told. Readers keep it and hand it back; only servers compare.
// The zero Position is none.
type Position struct{ Timeline, Seq int64 }

// String returns the form on the wire, for instance "7.10422".
func (p Position) String() string { return string(p.append(nil)) }

func (p Position) append(dst []byte) []byte {
	dst = strconv.AppendInt(dst, p.Timeline, 10)
	dst = append(dst, '.')
	return strconv.AppendInt(dst, p.Seq, 10)
}

// ParsePosition reads what String wrote.
func ParsePosition(s string) (Position, error) {
	timeline, seq, ok := strings.Cut(s, ".")
	t, err := number(timeline)
	if err == nil && ok {
		var n int64
		if n, err = number(seq); err == nil && t > 0 {
			return Position{t, n}, nil
		}
	}
	return Position{}, fmt.Errorf("feed position %.50q is not of the form 7.10422", s)
}

// number takes no sign and no leading zero, so that a position has one form.
func number(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err == nil && len(s) > 1 && s[0] == '0' {
		err = strconv.ErrSyntax
	}
	return int64(n), err
}
