package feed

import (
	"context"
	"math/rand/v2"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"
)

// No beat comes to the rescue here: while streams come, go and stand still, a
// round reaches each that is there.
func TestARoundReachesEveryStream(t *testing.T) {
	src := newSource(t, func(c *ServerConfig) { c.BeatEvery = time.Hour })
	src.add(1)
	url := src.serve(t)
	const steady, passing, entries = 40, 20, 300
	for range 3 {
		stalled(t, url)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	open := func(ctx context.Context) (*Reader, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		resp, err := plain.Do(r)
		if err != nil {
			return nil, err
		}
		return NewReader(resp.Body), nil
	}
	var ready, readers, guests sync.WaitGroup
	ready.Add(steady)
	for range steady {
		readers.Go(func() {
			reader, err := open(ctx)
			ready.Done()
			for last := int64(0); err == nil && last < entries+1; {
				var f Frame
				f, err = reader.Next()
				if f.HasPos {
					last = f.Pos.Seq
				}
			}
			if err != nil {
				t.Errorf("a reader was left behind: %v", err)
			}
		})
	}
	ready.Wait()
	over := make(chan struct{})
	for i := range passing {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		guests.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				visit, leave := context.WithCancel(ctx)
				reader, err := open(visit)
				for range random.IntN(5) {
					if err == nil {
						_, err = reader.Next()
					}
				}
				leave()
			}
		})
	}
	for i := range entries {
		src.add(1)
		for range i % 200 { // rounds of their own, and rounds that run into the next
			runtime.Gosched()
		}
	}
	readers.Wait()
	close(over)
	guests.Wait()
	src.Server.mu.Lock()
	defer src.Server.mu.Unlock()
	if r := &src.Server.round; r.walkers > len(r.streams) || r.walkers < 0 {
		t.Errorf("%d streams are to pass the round on, of %d", r.walkers, len(r.streams))
	}
}

// A stream that ends before it could pass the round on does so by leaving, and
// one that takes the place of another is not passed over.
func TestARoundGoesOnWhenStreamsLeave(t *testing.T) {
	var r round
	var all []*stream
	for range 5 {
		st := &stream{wake: make(chan struct{}, 1), idle: true}
		r.add(st)
		all = append(all, st)
	}
	before := runtime.GOMAXPROCS(1) // one walker
	defer runtime.GOMAXPROCS(before)
	r.begin()
	if !all[0].walker || r.walkers != 1 {
		t.Fatal("the first stream was not woken, or not alone")
	}
	late := &stream{wake: make(chan struct{}, 1), idle: true}
	r.add(late)
	r.remove(all[0]) // the late one takes its place
	for n := 0; r.walkers > 0; n++ {
		if n > 10 {
			t.Fatal("the round does not end")
		}
		for _, st := range r.streams {
			r.passed(st)
		}
	}
	for i, st := range append(all[1:], late) {
		if len(st.wake) != 1 {
			t.Errorf("stream %d was not woken", i+1)
		}
	}
}
