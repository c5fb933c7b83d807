package feed

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil/internal/revoked"
)

func TestSnapshotThenTailIsAllThereIs(t *testing.T) {
	src := newSource(t, nil)
	src.add(10_000)
	f := newFollower(t, src.serve(t))
	f.connect()
	parts := 0
	f.until(func(got Frame) bool {
		if got.Kind == Snapshot {
			parts++
		}
		return got.HasPos
	})
	if f.pos != "7.10000" || parts < 5 || f.snapshots != 1 {
		t.Errorf("position %s after %d parts", f.pos, parts)
	}
	f.wantAll(src.published())
	src.add(5)
	f.untilHas(entry(10_005).ID)
	if f.pos != "7.10005" || f.snapshots != 1 {
		t.Errorf("position %s, %d snapshots", f.pos, f.snapshots)
	}
	f.wantAll(src.published())
}

func TestAnEmptyLogHasASnapshotToo(t *testing.T) {
	src := newSource(t, nil)
	src.add(0)
	f := newFollower(t, src.serve(t))
	f.connect()
	if got, ok := f.next(); !ok || got.Kind != Snapshot || !got.HasPos || f.pos != "7.0" {
		t.Errorf("first came %+v", got)
	}
	if got, ok := f.next(); !ok || got.Kind != Heartbeat || got.Beat.Node != "n1" || got.Beat.Keys != 1 {
		t.Errorf("then came %+v", got)
	}
}

// A log as PostgreSQL's: numbers are drawn in one order and committed in another.
func TestResumeLosesNothing(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	src := newSource(t, func(c *ServerConfig) { c.BeatEvery = 5 * time.Millisecond })
	src.add(100)
	url := src.serve(t)
	const readers, total = 8, 4000
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range readers {
		cuts := rand.New(rand.NewPCG(seed, uint64(i)+1))
		wg.Go(func() {
			f := newFollower(t, url)
			for round := 0; ; round++ {
				f.connect()
				for range 1 + cuts.IntN(12) {
					if _, ok := f.next(); !ok {
						break
					}
				}
				select {
				case <-done:
					f.cut()
					f.connect()
					f.until(aBeat) // vouches for everything
					f.cut()
					f.wantAll(src.published())
					if f.snapshots != 1 {
						t.Errorf("%d snapshots in %d rounds", f.snapshots, round)
					}
					return
				default:
					f.cut()
				}
			}
		})
	}
	var late []int64
	resolved := int64(100)
	for seq := int64(101); seq <= total; {
		var batch []int64
		for range 1 + random.IntN(20) {
			if random.IntN(10) == 0 {
				late = append(late, seq)
			} else {
				batch = append(batch, seq)
			}
			seq++
		}
		for len(late) > 0 && random.IntN(3) == 0 {
			i := random.IntN(len(late))
			batch = append(batch, late[i])
			late = append(late[:i], late[i+1:]...)
		}
		resolved = seq - 1
		for _, l := range late {
			resolved = min(resolved, l-1)
		}
		src.put(resolved, batch...)
		if random.IntN(4) == 0 {
			<-time.After(time.Duration(random.IntN(3)) * time.Millisecond)
		}
	}
	src.put(total+20, late...)
	close(done)
	wg.Wait()
}

func TestAReaderFromAnotherNodeMissesNoLateEntry(t *testing.T) {
	src := newSource(t, nil)
	src.put(2, 1, 2)
	src.put(2, 4, 5) // 3 is late here
	src.put(5, 3)
	for _, tc := range []struct {
		pos  string
		want []int64
	}{{"7.2", []int64{3, 4, 5}}, {"7.3", []int64{4, 5}}, {"7.4", []int64{5}}, {"7.5", nil}, {"7.0", []int64{1, 2, 3, 4, 5}}} {
		f := newFollower(t, src.serve(t))
		f.pos = tc.pos
		f.connect()
		f.until(aBeat)
		for _, seq := range tc.want {
			if !f.ids[entry(seq).ID] {
				t.Errorf("from %s: %d was not told", tc.pos, seq)
			}
		}
		if f.snapshots != 0 || len(f.ids) > len(tc.want)+2 {
			t.Errorf("from %s: %d snapshots, told %d entries", tc.pos, f.snapshots, len(f.ids))
		}
		if tc.want == nil && len(f.ids) > 0 {
			t.Errorf("from %s: told %v once more", tc.pos, f.ids)
		}
		f.cut()
	}
}

func TestTooOldGetsASnapshot(t *testing.T) {
	for name, age := range map[string]func(*ServerConfig){
		"by memory": func(c *ServerConfig) { c.RetainBytes = 10_000 },
		"by time":   func(c *ServerConfig) { c.Retain = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			src := newSource(t, age)
			for range 1000 {
				src.add(1)
			}
			<-time.After(time.Microsecond)
			src.add(0) // lets go of what is old
			if src.size > 10_000 || len(src.frames) > 150 {
				t.Errorf("%d frames with %d bytes are kept", len(src.frames), src.size)
			}
			f := newFollower(t, src.serve(t))
			f.pos = "7.10"
			f.connect()
			f.until(aBeat)
			if f.snapshots != 1 || f.pos != "7.1000" {
				t.Errorf("%d snapshots, position %s", f.snapshots, f.pos)
			}
			f.wantAll(src.published())
		})
	}
}

func TestANodeThatIsBehindSaysSo(t *testing.T) {
	src := newSource(t, nil)
	url := src.serve(t)
	f := newFollower(t, url)
	refused := func(what string) {
		t.Helper()
		resp := f.ask()
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(body), `"code":"unavailable"`) {
			t.Errorf("%s: %s %s", what, resp.Status, body)
		}
	}
	refused("nothing was read yet")
	src.add(10)
	f.pos = "7.11"
	refused("the reader is ahead")

	// A poll behind is no reason to be sent away.
	answered := make(chan struct{})
	go func() {
		f.connect()
		f.until(aBeat)
		close(answered)
	}()
	<-time.After(20 * time.Millisecond)
	src.add(1)
	<-answered
	if f.snapshots != 0 {
		t.Error("a snapshot for a reader that was just ahead")
	}
}

func TestAnotherTimelineStartsWithASnapshot(t *testing.T) {
	src := newSource(t, nil)
	src.add(10)
	url := src.serve(t)
	f := newFollower(t, url)
	f.connect()
	f.until(aBeat)

	e := entry(1)
	e.ID = "after the restore"
	src.table.Apply(e)
	e.Position = 1_000_000
	src.Publish(Position{8, 1_000_000}, []revoked.Entry{e}, time.Now())
	f.until(func(got Frame) bool { return got.HasPos && got.Pos.Timeline == 8 })
	if f.snapshots != 2 || f.pos != "8.1000000" || !f.ids[e.ID] {
		t.Errorf("a stream that was there: %d snapshots, position %s, %v", f.snapshots, f.pos, f.ids[e.ID])
	}
	for _, pos := range []string{"7.10", "9.10", "7.99999999", "nonsense"} {
		f := newFollower(t, url)
		f.pos = pos
		f.connect()
		f.until(aBeat)
		f.wantAll(src.published())
		if f.snapshots != 1 || f.pos != "8.1000000" {
			t.Errorf("from %s: %d snapshots, position %s", pos, f.snapshots, f.pos)
		}
		f.cut()
	}
}

// stalled connects and reads the head of the answer, then nothing.
func stalled(t *testing.T, url string) *net.TCPConn {
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	tcp := conn.(*net.TCPConn)
	if err := tcp.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: feed\r\n\r\n")
	return tcp
}

func (s *source) following() int {
	s.Server.mu.Lock()
	defer s.Server.mu.Unlock()
	return len(s.round.streams)
}

func TestAStalledReaderIsCutAndGoesOn(t *testing.T) {
	// Long enough that on a busy machine it is not the good reader who is cut.
	src := newSource(t, func(c *ServerConfig) { c.WriteTimeout = time.Second; c.RetainBytes = 64 << 20 })
	src.add(1)
	url := src.serve(t)
	slow := stalled(t, url)
	good := newFollower(t, url)
	good.connect()
	good.until(aBeat)
	for src.following() == 2 {
		src.add(200)
		good.untilHas(entry(src.last).ID)
	}
	good.wantAll(src.published())
	if cut := src.Stats().Cut; cut != 1 {
		t.Errorf("%d readers counted as cut, want 1", cut)
	}

	// What lies in the buffers is good to its last whole frame.
	if err := slow.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(slow), nil)
	if err != nil {
		t.Fatal(err)
	}
	back := newFollower(t, url)
	back.reader = NewReader(resp.Body)
	for {
		if _, ok := back.next(); !ok {
			break
		}
	}
	before := len(back.ids)
	if before == 0 || before == len(src.published()) {
		t.Fatalf("%d of %d entries came before the cut", before, len(src.published()))
	}
	back.connect()
	back.until(aBeat)
	back.wantAll(src.published())
	if back.snapshots != 1 {
		t.Errorf("%d snapshots", back.snapshots)
	}
}

func TestOtherWaysToAsk(t *testing.T) {
	src := newSource(t, nil)
	src.add(3)
	plainURL := src.serve(t)
	t.Run("HTTP/1.0", func(t *testing.T) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(plainURL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET / HTTP/1.0\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		f := newFollower(t, "")
		f.reader = NewReader(resp.Body)
		f.until(aBeat)
		f.wantAll(src.published())
	})
	t.Run("HTTP/2", func(t *testing.T) {
		server := httptest.NewUnstartedServer(src)
		server.EnableHTTP2 = true
		server.StartTLS()
		resp, err := server.Client().Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		f := newFollower(t, "")
		f.reader = NewReader(resp.Body)
		f.until(aBeat)
		f.wantAll(src.published())
		if resp.ProtoMajor != 2 {
			t.Errorf("spoke %s", resp.Proto)
		}
		resp.Body.Close()
		server.Close()
	})
	t.Run("TLS", func(t *testing.T) {
		server := httptest.NewTLSServer(src)
		resp, err := server.Client().Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		f := newFollower(t, "")
		f.reader = NewReader(resp.Body)
		f.until(aBeat)
		f.wantAll(src.published())
		resp.Body.Close()
		server.Close()
	})
	t.Run("HEAD", func(t *testing.T) {
		resp, err := plain.Head(plainURL)
		if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("%+v, %v", resp, err)
		}
	})
}

func TestServeClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(t, nil)
		src.add(0)
		f, end := src.simulate(t, "")
		f.until(aBeat)
		end()
		time.Sleep(1500 * time.Millisecond)
		w := httptest.NewRecorder()
		src.ServeClock(w, httptest.NewRequest(http.MethodGet, "/", nil))
		c, err := ParseClock(w.Body.Bytes())
		if err != nil || c.Node != f.beat.Node || math.Abs(c.Now-f.beat.Now-time.Since(f.asked).Seconds()) > 1e-5 {
			t.Errorf("%s after a beat of %f: %v", w.Body, f.beat.Now, err)
		}
	})
}

func TestCloseEndsStreams(t *testing.T) {
	src := newSource(t, nil)
	src.add(1)
	url := src.serve(t)
	f := newFollower(t, url)
	f.connect()
	f.until(aBeat)
	src.Close()
	for {
		if _, err := f.reader.Next(); err == io.EOF {
			break // and no unexpected one: the end was meant
		} else if err != nil {
			t.Fatal(err)
		}
	}
	src.add(1) // does nothing
	if resp := f.ask(); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after Close: %s", resp.Status)
	}
}
