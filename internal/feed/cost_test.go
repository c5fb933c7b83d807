package feed

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/revoked"
)

// What a stream holds in the server's process, both ends counted, since they
// are in one process here: at most 30 kB.
func TestMemoryOfAConnection(t *testing.T) {
	const n = 1000
	src := newSource(t, nil)
	src.add(100)
	url := src.serve(t)
	measure := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := measure()
	for range n {
		stalled(t, url)
	}
	for src.following() < n {
		<-time.After(time.Millisecond)
	}
	<-time.After(2 * defaultBeatEvery) // each has been written to
	each := (measure() - before) / n
	t.Logf("%d bytes a connection", each)
	if each > 30<<10 {
		t.Errorf("%d bytes a connection, want at most %d", each, 30<<10)
	}
}

// From the publication of an entry to when the last of the readers has it, over
// loopback, readers in this process. Every fiftieth decodes and applies all it
// is told; the others look for positions only, or this would measure a
// thousand decoders on one machine.
func BenchmarkPublishToApplied(b *testing.B) {
	for _, readers := range []int{100, 1000} {
		for _, rate := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("readers=%d/rate=%d", readers, rate), func(b *testing.B) { lag(b, readers, rate) })
		}
	}
}

// arrivals counts, for each position, the readers that have come to it.
type arrivals struct {
	readers int64
	count   []atomic.Int64
	at      []time.Time
	all     chan struct{}
}

func (a *arrivals) upTo(from, to int64) {
	now := time.Now()
	for i := from + 1; i <= to && i < int64(len(a.count)); i++ {
		if a.count[i].Add(1) == a.readers {
			a.at[i] = now
			if i == int64(len(a.count))-1 {
				close(a.all)
			}
		}
	}
}

func lag(b *testing.B, readers, rate int) {
	src := newSource(b, nil)
	src.add(1)
	url := src.serve(b)
	total := max(3, min(2*rate, 2000))
	there := &arrivals{int64(readers), make([]atomic.Int64, total+2), make([]time.Time, total+2), make(chan struct{})}
	var ready, done sync.WaitGroup
	ready.Add(readers)
	for i := range readers {
		done.Go(func() {
			resp, err := plain.Get(url)
			if err != nil {
				b.Error(err)
				ready.Done()
				return
			}
			defer resp.Body.Close()
			if i%50 == 0 {
				decoding(resp.Body, ready.Done, there)
			} else {
				looking(resp.Body, ready.Done, there)
			}
		})
	}
	ready.Wait()
	at := make([]time.Time, total+2)
	b.ResetTimer()
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	for i := range total {
		<-ticker.C
		at[i+2] = time.Now()
		src.add(1)
	}
	ticker.Stop()
	<-there.all
	src.Close()
	done.Wait()
	lags := make([]float64, total)
	for i := range lags {
		lags[i] = float64(there.at[i+2].Sub(at[i+2]).Microseconds()) / 1000
	}
	slices.Sort(lags)
	b.ReportMetric(lags[total/2], "p50-ms")
	b.ReportMetric(lags[total*99/100], "p99-ms")
	b.ReportMetric(lags[total-1], "max-ms")
	b.ReportMetric(0, "ns/op")
}

func decoding(body io.Reader, ready func(), there *arrivals) {
	table := revoked.NewTable(nil)
	r := NewReader(body)
	first, seq := true, int64(1)
	for {
		f, err := r.Next()
		if err != nil {
			return
		}
		table.Apply(f.Entries...)
		if first && f.Kind == Heartbeat {
			first = false
			ready()
		}
		if f.HasPos {
			there.upTo(seq, f.Pos.Seq)
			seq = f.Pos.Seq
		}
	}
}

func looking(body io.Reader, ready func(), there *arrivals) {
	lines := bufio.NewReaderSize(body, 1024)
	first, seq := true, int64(1)
	var pos int64
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case err == bufio.ErrBufferFull:
		case err != nil:
			return
		case bytes.HasPrefix(line, []byte("id: 7.")):
			pos, _ = strconv.ParseInt(string(line[6:len(line)-1]), 10, 64)
		case first && bytes.HasPrefix(line, []byte("event: beat")):
			first = false
			ready()
		case len(line) == 1 && pos > seq:
			there.upTo(seq, pos)
			seq = pos
		}
	}
}

func BenchmarkReader(b *testing.B) {
	entries := make([]revoked.Entry, 100)
	for i := range entries {
		entries[i] = entry(int64(i))
	}
	one := AppendLive(nil, Position{7, 1}, entries)
	r := NewReader(&repeat{part: string(one)})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/entry")
}
