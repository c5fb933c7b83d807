package feed

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/counterfoil/counterfoil/internal/revoked"
	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// MaxFrame is the longest event that a Reader takes, in bytes.
const MaxFrame = 1 << 20

// ErrTooLong says that an event is longer than MaxFrame.
var ErrTooLong = errors.New("feed: an event is too long")

// Kind says what a frame is.
type Kind int

// The kinds of frames.
const (
	Snapshot Kind = iota + 1
	Live
	Heartbeat
)

// String returns the name on the wire.
func (k Kind) String() string {
	switch k {
	case Snapshot:
		return "snapshot"
	case Live:
		return "live"
	case Heartbeat:
		return "beat"
	}
	return "unknown"
}

// Frame is one event of the feed.
type Frame struct {
	Kind    Kind
	Pos     Position // with HasPos: as far as the reader has come with this frame
	HasPos  bool
	High    int64 // with HasPos: how high positions of entries were until now; 0: not above Pos
	Entries []revoked.Entry
	Foreign []revoked.Entry // of kinds that this version does not know; with Reader.KeepForeign
	// Skipped counts what this version does not know: entries in this frame,
	// and events between the frame before and this one.
	Skipped int
	Beat    Beat // of a Heartbeat
}

// Reader decodes a feed. It takes what later versions may add: events,
// members, kinds of entries. Anything that is wrong ends it. It is for one
// goroutine.
type Reader struct {
	// KeepForeign hands over the entries whose kind this version does not know.
	KeepForeign bool

	src   *bufio.Reader
	begun bool
	size  int // of the event so far

	event, id, data []byte
	high            []byte
	hasID, hasData  bool
}

// NewReader returns a Reader of a response's body.
func NewReader(r io.Reader) *Reader { return &Reader{src: bufio.NewReader(r)} }

// Next returns the next frame; it waits until its last byte is there. At the
// end of the stream it returns io.EOF, also within a frame: what was not told
// in full was not told.
func (r *Reader) Next() (Frame, error) {
	skipped := 0
	r.reset()
	for {
		line, err := r.line()
		if err != nil {
			return Frame{}, err
		}
		if len(line) > 0 {
			r.field(line)
			continue
		}
		if !r.hasData {
			r.reset()
			continue
		}
		f, known, err := r.frame()
		if err != nil {
			return Frame{}, err
		}
		if known {
			f.Skipped += skipped
			return f, nil
		}
		skipped++
		r.reset()
	}
}

func (r *Reader) reset() {
	r.size, r.hasID, r.hasData = 0, false, false
	r.event, r.id, r.data, r.high = r.event[:0], r.id[:0], r.data[:0], r.high[:0]
}

// line reads up to a line feed, and takes a carriage return before it away.
// It is good until the next read.
func (r *Reader) line() ([]byte, error) {
	var long []byte
	for {
		part, err := r.src.ReadSlice('\n')
		if r.size += len(part); r.size > MaxFrame {
			return nil, ErrTooLong
		}
		if err == bufio.ErrBufferFull {
			long = append(long, part...)
			continue
		}
		if err != nil {
			return nil, err
		}
		line := part
		if long != nil {
			line = append(long, part...)
		}
		line = bytes.TrimSuffix(line[:len(line)-1], []byte("\r"))
		if !r.begun {
			r.begun = true
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		return line, nil
	}
}

func (r *Reader) field(line []byte) {
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "event":
		r.event = append(r.event[:0], value...)
	case "id":
		r.id, r.hasID = append(r.id[:0], value...), true
	case "high":
		r.high = append(r.high[:0], value...)
	case "data":
		if r.hasData {
			r.data = append(r.data, '\n')
		}
		r.data, r.hasData = append(r.data, value...), true
	}
}

func (r *Reader) frame() (f Frame, known bool, err error) {
	switch string(r.event) {
	case "snapshot":
		f.Kind = Snapshot
	case "live":
		f.Kind = Live
	case "beat":
		f.Kind = Heartbeat
	default:
		return f, false, nil
	}
	if f.Kind == Heartbeat {
		f.Beat, err = parseBeat(r.data)
	} else {
		f.Entries, f.Foreign, err = revoked.DecodeAll(r.data)
		f.Skipped = len(f.Foreign)
		if !r.KeepForeign {
			f.Foreign = nil
		}
	}
	if err == nil && r.hasID && f.Kind != Heartbeat {
		f.HasPos = true
		f.Pos, err = ParsePosition(string(r.id))
		if err == nil && len(r.high) > 0 {
			f.High, err = number(string(r.high))
		}
	}
	if err != nil {
		return f, false, fmt.Errorf("feed: a %s frame: %w", f.Kind, err)
	}
	return f, true, nil
}

func parseBeat(data []byte) (b Beat, err error) {
	var age, now, keys bool
	err = strictjson.Object(data, func(name string, value []byte) (err error) {
		switch name {
		case "age_ms":
			age = true
			b.AgeMS, err = strictjson.Int(value)
			if err == nil && b.AgeMS < 0 {
				err = errors.New("is negative")
			}
		case "now":
			now = true
			b.Now, err = parseSeconds(value)
		case "keys":
			keys = true
			b.Keys, err = strictjson.Int(value)
		case "node":
			b.Node, err = strictjson.String(value)
		case "level":
			b.Level, err = strictjson.Int(value)
			if err == nil && b.Level < 0 {
				err = errors.New("is negative")
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	if err == nil && !(age && now && keys) {
		err = errors.New("age_ms, now or keys is missing")
	}
	return b, err
}

// parseSeconds reads a JSON number, whose form is checked already.
func parseSeconds(value []byte) (float64, error) {
	if len(value) == 0 || value[0] != '-' && (value[0] < '0' || value[0] > '9') {
		return 0, errors.New("is no number")
	}
	s, err := strconv.ParseFloat(string(value), 64)
	if err != nil || s < 0 || s > math.MaxInt32*1000.0 {
		return 0, errors.New("is no time")
	}
	return s, nil
}

// Clock is the answer of the clock's address: the node, and its monotonic
// clock as in beats.
type Clock struct {
	Node string
	Now  float64
}

// ParseClock reads what [Server.ServeClock] answered.
func ParseClock(data []byte) (c Clock, err error) {
	var node, now bool
	err = strictjson.Object(data, func(name string, value []byte) (err error) {
		switch name {
		case "node":
			node = true
			c.Node, err = strictjson.String(value)
		case "now":
			now = true
			c.Now, err = parseSeconds(value)
		}
		return err
	})
	if err == nil && !(node && now) {
		err = errors.New("node or now is missing")
	}
	if err != nil {
		return Clock{}, fmt.Errorf("feed: clock: %w", err)
	}
	return c, nil
}
