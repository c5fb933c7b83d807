package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// keyCheckEvery is how often the API key of a running stream is looked at again.
const keyCheckEvery = time.Minute

func feedRoutes() []route {
	return []route{
		handle(route{
			method: http.MethodGet, path: "/revocations", name: "followRevocations", scope: counterfoil.ScopeVerify,
			summary: "The feed of revocations, as server-sent events",
			detail: "Without Last-Event-ID, or with one from too long ago, all that is retained comes first (snapshot); then each revocation as it is committed (live), " +
				"and every 100 ms a beat that says how old what was told is. Several entries may share an event, and come more than once. A node that has not read as far as Last-Event-ID answers 503.",
		}, func(*call, *struct{}) (feedStream, error) { return feedStream{}, nil }),
		handle(route{
			method: http.MethodGet, path: "/revocations/clock", name: "feedClock", scope: counterfoil.ScopeVerify,
			summary: "The clock by which the beats of the feed are stamped",
		}, func(*call, *struct{}) (feedClock, error) { return feedClock{}, nil }),
	}
}

// feedClock is the answer of the feed's clock.
type feedClock struct{}

func (feedClock) serve(c *call) { c.auth.ServeFeedClock(bodiless(c.w, c.r), c.r) }

// feedStream is the feed.
type feedStream struct{}

func (feedStream) serve(c *call) {
	ctx, end := context.WithCancel(c.ctx())
	defer end()
	go c.endWithKey(ctx, end)
	c.auth.ServeFeed(c.w, c.r.WithContext(ctx))
	if o := seen(c.w); o.status == 0 {
		o.status = http.StatusOK // the feed took the connection over
	}
}

// endWithKey calls end when the API key that opened the stream is good no
// more. While the store cannot be asked the stream goes on.
func (c *call) endWithKey(ctx context.Context, end func()) {
	again := time.NewTicker(keyCheckEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		var refused *verify.Error
		if _, err := c.apiKey(); errors.As(err, &refused) && refused.Status < http.StatusInternalServerError {
			end()
			return
		}
	}
}
