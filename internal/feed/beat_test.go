package feed

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// staleness is what a verifier works out at t (protocol section 5).
func (f *follower) staleness(t time.Time) time.Duration {
	return time.Duration(f.beat.AgeMS)*time.Millisecond + t.Sub(f.asked) - time.Duration((f.beat.Now-f.first.Now)*float64(time.Second))
}

func TestBeatsTellTheAgeOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(t, nil)
		src.add(1)
		f, end := src.simulate(t, "")
		defer src.Close()
		defer end()
		f.until(aBeat)

		read := time.Now()
		for range 100 {
			time.Sleep(10 * time.Millisecond)
			read = time.Now()
			src.add(0)
			if time.Since(f.asked)%(100*time.Millisecond) == 0 {
				f.until(aBeat)
				if f.beat.AgeMS > 10 {
					t.Errorf("age %d ms after %s with a healthy store", f.beat.AgeMS, time.Since(f.asked))
				}
			}
		}
		// The store is down: what the beats say grows with the time.
		for range 50 {
			f.until(aBeat)
			if age := time.Since(read).Milliseconds(); f.beat.AgeMS < age || f.beat.AgeMS > age+1 {
				t.Errorf("beat says %d ms, the store was read %d ms ago", f.beat.AgeMS, age)
			}
		}
		// It is back.
		src.add(0)
		f.until(aBeat)
		if f.beat.AgeMS > 101 {
			t.Errorf("age %d ms after the store came back", f.beat.AgeMS)
		}
	})
}

func TestABeatComesAfterWhatItVouchesFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(t, nil)
		src.add(1)
		f, end := src.simulate(t, "")
		defer src.Close()
		defer end()
		f.until(aBeat)
		time.Sleep(98 * time.Millisecond)
		src.add(1) // goes out at once
		time.Sleep(time.Millisecond)
		src.add(1) // waits for the next flush, in 4 ms
		time.Sleep(time.Millisecond)
		f.until(aBeat)
		if !f.ids[entry(3).ID] || f.beat.AgeMS > 1 {
			t.Errorf("a beat of age %d ms came before the entry that it vouches for", f.beat.AgeMS)
		}
	})
}

// However a stream is delayed, a verifier never takes it for fresher than it is.
func TestADelayedStreamCountsAsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		src := newSource(t, func(c *ServerConfig) { c.WriteTimeout = time.Minute })
		defer src.Close()
		var mu sync.Mutex
		reads := map[int64]time.Time{0: time.Now()} // position → when the store was known to have it last
		src.put(0)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		defer wg.Wait()
		defer close(stop)
		wg.Go(func() {
			for n := int64(1); ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(1+random.IntN(30)) * 100 * time.Microsecond):
				}
				mu.Lock()
				reads[n] = time.Now()
				mu.Unlock()
				src.put(n, n)
			}
		})
		time.Sleep(time.Second)
		delay := rand.New(rand.NewPCG(seed, 1))
		for range 6 {
			time.Sleep(time.Duration(delay.IntN(150)) * time.Millisecond)
			f, end := src.simulate(t, "")
			f.until(aBeat)
			for range 100 {
				if delay.IntN(8) == 0 {
					time.Sleep(time.Duration(delay.IntN(300)) * time.Millisecond)
				}
				if _, ok := f.next(); !ok {
					t.Fatal("cut")
				}
				// Everything up to the position is here; the entry after it is not,
				// so the store was complete, as far as this reader knows, until then.
				pos, _ := ParsePosition(f.pos)
				mu.Lock()
				next, more := reads[pos.Seq+1]
				mu.Unlock()
				now := time.Now()
				if told := f.staleness(now); more && told < now.Sub(next)-time.Microsecond {
					t.Fatalf("told %s, but an entry of %s ago is missing", told, now.Sub(next))
				}
			}
			end()
		}
	})
}

func TestFlushesAreGrouped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(t, nil)
		src.add(1)
		f, end := src.simulate(t, "")
		defer src.Close()
		defer end()
		f.until(aBeat)
		time.Sleep(50 * time.Millisecond)

		began := time.Now()
		src.add(1)
		f.untilHas(entry(2).ID)
		if took := time.Since(began); took != 0 {
			t.Errorf("an idle server waits %s", took)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 1000 {
				src.add(1)
				time.Sleep(100 * time.Microsecond)
			}
		})
		before := f.frames
		f.untilHas(entry(1002).ID)
		wg.Wait()
		if n := f.frames - before; n > 25 { // 100 ms in steps of 5 ms, and beats
			t.Errorf("%d frames for 1000 entries in 100 ms", n)
		}
		f.wantAll(src.published())
	})
}

func TestTheFirstBeatComesAfterAllThatIsMissing(t *testing.T) {
	src := newSource(t, nil)
	src.add(1000)
	url := src.serve(t)
	// One that is there, so that what comes is grouped.
	other := newFollower(t, url)
	other.connect()
	other.until(aBeat)
	for range 50 {
		src.add(1)
		f := newFollower(t, url)
		f.pos = "7.500"
		f.connect()
		want := src.published()
		f.until(aBeat)
		f.cut()
		delete(want, "")
		for seq := int64(501); seq <= src.last; seq++ {
			if !f.ids[entry(seq).ID] {
				t.Fatalf("%d was not told before the first beat", seq)
			}
		}
	}
}
