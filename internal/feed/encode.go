package feed

import (
	"math"
	"strconv"

	"github.com/counterfoil/counterfoil/internal/revoked"
	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// Beat tells how fresh the stream is: whatever the store had AgeMS
// milliseconds before Now has been told in the frames before this one.
type Beat struct {
	AgeMS int64
	Now   float64 // seconds since 1970 by the node's monotonic clock
	Keys  int64   // version of the key set that the node publishes
	Node  string  // names the process whose clock it is
	Level int64   // how many relays lie between the authority and this node
}

// AppendSnapshot appends a frame of all that is retained, or of a part of it
// when pos is zero.
func AppendSnapshot(dst []byte, pos Position, entries []revoked.Entry) []byte {
	return appendEntries(dst, "snapshot", pos, pos.Seq, entries)
}

// AppendLive appends a frame of new entries, or of a part of them when pos is zero.
func AppendLive(dst []byte, pos Position, entries []revoked.Entry) []byte {
	return appendEntries(dst, "live", pos, pos.Seq, entries)
}

// appendEntries says how high the positions of entries were until now where
// that is above pos, for a relay that has to know what a frame may hold.
func appendEntries(dst []byte, event string, pos Position, high int64, entries []revoked.Entry) []byte {
	if pos != (Position{}) {
		dst = append(dst, "id: "...)
		dst = append(pos.append(dst), '\n')
		if high > pos.Seq {
			dst = append(dst, "high: "...)
			dst = append(strconv.AppendInt(dst, high, 10), '\n')
		}
	}
	dst = append(dst, "event: "...)
	dst = append(dst, event...)
	dst = append(dst, "\ndata: ["...)
	for i, e := range entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = e.AppendJSON(dst)
	}
	return append(dst, "]\n\n"...)
}

// AppendBeat appends a beat.
func AppendBeat(dst []byte, b Beat) []byte {
	dst = append(dst, "event: beat\ndata: {\"age_ms\":"...)
	dst = strconv.AppendInt(dst, b.AgeMS, 10)
	dst = append(dst, `,"now":`...)
	dst = appendSeconds(dst, b.Now)
	dst = append(dst, `,"keys":`...)
	dst = strconv.AppendInt(dst, b.Keys, 10)
	dst = append(dst, `,"node":`...)
	dst = strictjson.AppendString(dst, b.Node)
	if b.Level > 0 {
		dst = append(dst, `,"level":`...)
		dst = strconv.AppendInt(dst, b.Level, 10)
	}
	return append(dst, "}\n\n"...)
}

// appendSeconds writes microseconds: finer than any network, and all that a
// float of this size holds.
func appendSeconds(dst []byte, s float64) []byte {
	if math.IsNaN(s) || math.IsInf(s, 0) {
		s = 0
	}
	return strconv.AppendFloat(dst, s, 'f', 6, 64)
}

// maxPiece is the most that goes out in one frame, and in one write.
const maxPiece = 32 << 10

// frame is one event as it goes out, made once for all streams. It is a chunk
// of HTTP/1.1's chunked coding; [frame.event] is what is in it.
type frame []byte

const chunkHead = len("00000000\r\n")

func newFrame(fill func(dst []byte) []byte) frame {
	f := fill(append(make(frame, 0, 256), "00000000\r\n"...))
	n := len(f) - chunkHead
	for i := 7; i >= 0; i-- {
		f[i] = "0123456789abcdef"[n&15]
		n >>= 4
	}
	return append(f, "\r\n"...)
}

func (f frame) event() []byte { return f[chunkHead : len(f)-2] }

// cut makes as many frames as the entries need; at least one. The last has
// the position.
func cut(event Kind, pos Position, high int64, entries []revoked.Entry) []frame {
	var frames []frame
	for {
		n := fitting(entries)
		at := Position{}
		if n == len(entries) {
			at = pos
		}
		frames = append(frames, newFrame(func(dst []byte) []byte { return appendEntries(dst, event.String(), at, high, entries[:n]) }))
		entries = entries[n:]
		if len(entries) == 0 {
			return frames
		}
	}
}

// fitting is how many of the entries fit one piece, at least one of them.
func fitting(entries []revoked.Entry) int {
	size := 128 // for what is around them
	for i, e := range entries {
		// Each byte of text takes six at most: \u0000.
		size += 6*(len(e.ID)+len(e.Except)) + 80
		if size > maxPiece && i > 0 {
			return i
		}
	}
	return len(entries)
}
