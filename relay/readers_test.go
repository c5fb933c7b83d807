package relay

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

// However many keys follow, each is looked at before the last answer about it
// counts no more: a revoked one among thousands ends within the minute.
func TestARevokedKeyAmongManyEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var revoked atomic.Bool
		r := newReaders("https://app.example", func(ctx context.Context, authorize func(*http.Request)) (time.Duration, error) {
			time.Sleep(100 * time.Millisecond) // the way to the authority
			if revoked.Load() {
				return 0, verify.ErrTokenInvalid
			}
			return 0, nil
		}, "", slog.New(slog.DiscardHandler))
		r.start()
		defer r.close()
		var streams []context.Context
		for i := range 2000 {
			hash, authorize := keyHash{byte(i), byte(i >> 8)}, func(*http.Request) {}
			if _, err := r.check(t.Context(), hash, authorize); err != nil {
				t.Fatal(err)
			}
			ctx, end := r.follow(t.Context(), hash, authorize)
			defer end()
			streams = append(streams, ctx)
		}
		time.Sleep(2 * time.Minute)
		revoked.Store(true)
		time.Sleep(goodFor + lookEvery)
		synctest.Wait()
		alive := 0
		for _, s := range streams {
			if s.Err() == nil {
				alive++
			}
		}
		if alive > 0 {
			t.Errorf("%d of %d streams go on more than a minute after their API keys were revoked", alive, len(streams))
		}
	})
}
