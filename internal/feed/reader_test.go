package feed

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/revoked"
)

func TestPositionHasOneForm(t *testing.T) {
	for _, good := range []string{"1.0", "7.10422", "9223372036854775807.9223372036854775807"} {
		p, err := ParsePosition(good)
		if err != nil || p.String() != good {
			t.Errorf("%s: %v, %v", good, p, err)
		}
	}
	for _, bad := range []string{"", ".", "7", "7.", ".7", "0.5", "-1.5", "7.-1", "+7.1", "07.1", "7.01", "7.1.1", "7. 1", "9223372036854775808.1", "a.b", strings.Repeat("1", 1000)} {
		if p, err := ParsePosition(bad); err == nil {
			t.Errorf("%q was read as %v", bad, p)
		}
	}
}

func all(t *testing.T, stream string) ([]Frame, error) {
	t.Helper()
	r := NewReader(strings.NewReader(stream))
	var frames []Frame
	for {
		f, err := r.Next()
		if err != nil {
			return frames, err
		}
		frames = append(frames, f)
	}
}

func TestFramesComeBack(t *testing.T) {
	until := time.Unix(1763770000, 0).UTC()
	entries := []revoked.Entry{
		{Kind: revoked.Session, ID: "s1", Until: until},
		{Kind: revoked.Subject, ID: "line\nfeed\u2028\r\x00", StaleBelow: 7, RevokedBelow: 7, Until: until, Except: "s2"},
		{Kind: revoked.Key, ID: "k1"},
	}
	beat := Beat{AgeMS: 12, Now: 1763770000.123456, Keys: 41, Node: "a7"}
	stream := AppendSnapshot(nil, Position{}, entries[:1])
	stream = AppendSnapshot(stream, Position{7, 10422}, entries[1:])
	stream = AppendLive(stream, Position{7, 10423}, nil)
	stream = AppendBeat(stream, beat)
	got, err := all(t, string(stream))
	want := []Frame{
		{Kind: Snapshot, Entries: entries[:1]},
		{Kind: Snapshot, Pos: Position{7, 10422}, HasPos: true, Entries: entries[1:]},
		{Kind: Live, Pos: Position{7, 10423}, HasPos: true},
		{Kind: Heartbeat, Beat: beat},
	}
	if err != io.EOF || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
	}
}

func TestReaderTakesWhatItDoesNotKnow(t *testing.T) {
	got, err := all(t, "\ufeff: hello\r\nretry: 5\r\n\r\n"+
		"event: keys\ndata: whatever\nid: 9.9\n\n"+
		"data: no event\n\n"+
		"event:live\r\nfuture: field\r\nid:7.1\r\ndata:[[\"z\",1],\r\ndata: [\"s\",\"a\",5]]\r\n\r\n"+
		"event: beat\ndata: {\"age_ms\":1,\"now\":2.5,\"keys\":3,\"more\":{\"a\":[]}}\n\n"+
		"event: live\ndata: [[\"s\",\"never told to its end\",5]]\n")
	want := []Frame{
		{Kind: Live, Pos: Position{7, 1}, HasPos: true, Entries: []revoked.Entry{{Kind: revoked.Session, ID: "a", Until: time.Unix(5, 0).UTC()}}, Skipped: 3},
		{Kind: Heartbeat, Beat: Beat{AgeMS: 1, Now: 2.5, Keys: 3}},
	}
	if err != io.EOF || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
	}
}

func TestReaderRefuses(t *testing.T) {
	for _, bad := range []string{
		"event: live\ndata: nonsense\n\n",
		"event: live\ndata: [[\"s\"]]\n\n",
		"event: live\nid: seven\ndata: []\n\n",
		"event: beat\ndata: []\n\n",
		"event: beat\ndata: {\"age_ms\":1,\"now\":2}\n\n",
		"event: beat\ndata: {\"age_ms\":-1,\"now\":2,\"keys\":1}\n\n",
		"event: beat\ndata: {\"age_ms\":1,\"now\":\"2\",\"keys\":1}\n\n",
		"event: beat\ndata: {\"age_ms\":1,\"now\":1e999,\"keys\":1}\n\n",
		"event: beat\ndata: {\"age_ms\":1,\"now\":-2,\"keys\":1}\n\n",
		"event: beat\ndata: {\"age_ms\":1,\"age_ms\":2,\"now\":2,\"keys\":1}\n\n",
	} {
		if frames, err := all(t, bad); err == io.EOF || err == nil {
			t.Errorf("%q was read as %+v", bad, frames)
		}
	}
	// Without end in a line, in lines, in comments.
	for _, part := range []string{"data: aaaaaaa", "data: aaaaaa\n", ": hello\n"} {
		_, err := NewReader(endless(part)).Next()
		if !errors.Is(err, ErrTooLong) {
			t.Errorf("%q without end: %v", part, err)
		}
	}
}

func endless(part string) io.Reader { return &repeat{part: part} }

type repeat struct {
	part string
	at   int
}

func (r *repeat) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.part[r.at%len(r.part)]
		r.at++
	}
	return len(p), nil
}

func TestClockComesBack(t *testing.T) {
	if c, err := ParseClock([]byte(`{"node":"a7","now":5.5,"more":1}`)); err != nil || c != (Clock{"a7", 5.5}) {
		t.Errorf("%+v, %v", c, err)
	}
	for _, bad := range []string{``, `{}`, `{"node":"a"}`, `{"now":5}`, `{"node":1,"now":5}`, `{"node":"a","now":-5}`, `{"node":"a","now":true}`} {
		if c, err := ParseClock([]byte(bad)); err == nil {
			t.Errorf("%s was read as %+v", bad, c)
		}
	}
}

func TestCutKeepsFramesShort(t *testing.T) {
	var entries []revoked.Entry
	for range 1000 {
		entries = append(entries, revoked.Entry{Kind: revoked.Subject, ID: strings.Repeat("\x01", 255), StaleBelow: 1 << 62, RevokedBelow: 1 << 62, Until: time.Unix(1<<33, 0).UTC(), Except: strings.Repeat("s", 24)})
	}
	var got []revoked.Entry
	frames := cut(Snapshot, Position{1, 2}, 2, entries)
	for i, f := range frames {
		if len(f) > maxPiece {
			t.Errorf("frame %d of %d has %d bytes", i, len(frames), len(f))
		}
		parsed, err := NewReader(strings.NewReader(string(f.event()))).Next()
		if err != nil || parsed.HasPos != (i == len(frames)-1) {
			t.Fatalf("frame %d of %d: %v, position %v", i, len(frames), err, parsed.HasPos)
		}
		got = append(got, parsed.Entries...)
	}
	if len(frames) < 10 || !reflect.DeepEqual(got, entries) {
		t.Errorf("%d frames, %d entries", len(frames), len(got))
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("id: 7.1\nevent: snapshot\ndata: [[\"s\",\"a\",5],[\"z\"]]\n\nevent: beat\ndata: {\"age_ms\":1,\"now\":2.5,\"keys\":3,\"node\":\"n\"}\n\n"))
	f.Add([]byte("\ufeffevent:live\r\ndata:[]\r\nid:1.1\r\n\r\n: c\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(strings.NewReader(string(data)))
		for {
			got, err := r.Next()
			if err != nil {
				return
			}
			var again []byte
			switch got.Kind {
			case Snapshot:
				again = AppendSnapshot(nil, got.Pos, got.Entries)
			case Live:
				again = AppendLive(nil, got.Pos, got.Entries)
			case Heartbeat:
				// Beats are rounded to the microsecond.
				got.Beat.Now = float64(int64(got.Beat.Now))
				again = AppendBeat(nil, got.Beat)
			}
			back, err := NewReader(strings.NewReader(string(again))).Next()
			got.Skipped = 0
			if err != nil || !reflect.DeepEqual(got, back) {
				t.Fatalf("%q\n%+v\n%+v\n%v", again, got, back, err)
			}
		}
	})
}

func FuzzClock(f *testing.F) {
	f.Add([]byte(`{"node":"a7","now":1763770000.123456}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := ParseClock(data); err == nil && !(c.Now >= 0) {
			t.Fatalf("%s: %v", data, c)
		}
	})
}
