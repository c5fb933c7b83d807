package verify

import (
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/jws"
)

// Whoever runs the authority sees the lag of its verifiers: each tells it when
// it asks for the clock.
func TestFeedLagIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(newKey(t, "k1", jws.ES256))
		var mu sync.Mutex
		var told []int
		a.replace = map[string]http.HandlerFunc{"/v1/revocations/clock": func(w http.ResponseWriter, r *http.Request) {
			ms, err := strconv.Atoi(r.Header.Get(feed.LagHeader))
			if err != nil {
				t.Errorf("%s: %q", feed.LagHeader, r.Header.Get(feed.LagHeader))
			}
			mu.Lock()
			told = append(told, ms)
			mu.Unlock()
			a.log.server().ServeClock(w, r)
		}}
		v := follow(t, a, Config{})
		time.Sleep(time.Minute)
		a.log.publish(endSession("s1"))
		time.Sleep(time.Minute)
		if s := v.Stats(); s.EventLag <= 0 {
			t.Errorf("%+v", s)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(told) < 4 {
			t.Fatalf("told %d times in two minutes", len(told))
		}
		for _, ms := range told {
			if ms < 0 || time.Duration(ms)*time.Millisecond > healthy {
				t.Errorf("%d ms", ms)
			}
		}
	})
}
