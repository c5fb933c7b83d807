package verify

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/counterfoil/counterfoil/internal/strictjson"
)

const (
	pinEvery = 30 * time.Second // how often the node's clock is asked
	pinAgain = 5 * time.Second  // the same where it was not told
	// pinsUntil is how long a stream goes on without: where another node
	// answers each time, a new stream tells the clock of its own.
	pinsUntil = 5 * time.Minute
)

var errUnpinned = errors.New("the clock of the feed's node could not be asked for too long")

// pinClock asks the node of the stream for its clock, soon after the stream
// has begun (the head of a stream can be long under way) and then regularly.
func (f *follower) pinClock() {
	timer := time.NewTimer(pinEvery)
	defer timer.Stop()
	pinned, _ := f.age.read()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-f.pinning:
			pinned, _ = f.age.read()
			timer.Reset(rand.N(time.Second))
			continue
		case <-timer.C:
		}
		if !f.stats.connected.Load() {
			timer.Reset(pinEvery)
			continue
		}
		ok, err := f.askClock()
		now, _ := f.age.read()
		switch {
		case ok:
			pinned = now
			timer.Reset(pinEvery - rand.N(pinEvery/10))
			continue
		case f.ctx.Err() != nil:
			return
		case err != nil:
			f.log.Debug("the clock of the feed could not be asked", "url", f.clockURL, "error", err)
		}
		if now-pinned > pinsUntil {
			pinned = now
			f.interrupt(errUnpinned)
		}
		timer.Reset(pinAgain - rand.N(pinAgain/5))
	}
}

// askClock reports whether the node that the stream is from has told its clock.
func (f *follower) askClock() (bool, error) {
	t0, _ := f.age.read()
	doc, err := fetchAs(f.ctx, f.keys.client, f.clockURL, func(r *http.Request) {
		f.authorize(r)
		f.stats.report(r, f.age)
	})
	if err != nil {
		return false, err
	}
	t1, _ := f.age.read()
	node, now, err := parseClock(doc.body)
	if err != nil {
		return false, fmt.Errorf("GET %s: %w", f.clockURL, err)
	}
	return f.age.repin(t0, t1, node, now), nil
}

func parseClock(data []byte) (node string, now float64, err error) {
	err = strictjson.Object(data, func(name string, value []byte) (err error) {
		switch name {
		case "node":
			node, err = strictjson.String(value)
		case "now":
			now, err = strconv.ParseFloat(string(value), 64)
		}
		return err
	})
	if err == nil && (now <= 0 || now > latestSeconds) {
		err = errors.New("now is missing or no time")
	}
	return node, now, err
}
