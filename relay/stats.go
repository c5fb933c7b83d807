package relay

import (
	"math"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/metrics"
)

// Outcomes of a live check that was forwarded.
const (
	answered = iota
	refused
	failed
)

func outcome(status int) int {
	switch {
	case status < 300:
		return answered
	case status < 500:
		return refused
	}
	return failed
}

type counters struct {
	forwards [3]atomic.Uint64
	lag      *metrics.Histogram
}

func (c *counters) init() {
	const ms = time.Millisecond
	c.lag = metrics.NewHistogram(10*ms, 25*ms, 50*ms, 100*ms, 150*ms, 250*ms, 500*ms, time.Second, 5*time.Second, 30*time.Second, time.Minute, 5*time.Minute)
}

// noteLag counts what a reader reports. A report that makes no sense is none.
func (c *counters) noteLag(r *http.Request) {
	ms, err := strconv.ParseUint(r.Header.Get(feed.LagHeader), 10, 32)
	if lag := time.Duration(ms) * time.Millisecond; err == nil && lag <= 24*time.Hour {
		c.lag.Observe(lag)
	}
}

// Stats tells how a relay is doing. Counters count from its start.
type Stats struct {
	Ready     bool   // there is something to serve
	Connected bool   // what is followed beats
	Upstream  string // the address that is followed
	Level     int64  // 1 behind the authority, 2 behind such a relay, and so on
	// FeedAge is how old, at most, what is served is. It counts back to the
	// last full read of the authority's store. Without FeedAgeKnown it is
	// nothing: the relay serves what an earlier run has left.
	FeedAge      time.Duration
	FeedAgeKnown bool
	EventLag     time.Duration // that of the last revocations, from the store to here, at most
	Position     string        // as in the ids of events; empty for none
	KeyVersion   int64
	Events       uint64 // revocations heard
	Skipped      uint64 // entries of kinds that this version does not know; they are passed on
	Reconnects   uint64 // streams of what is followed that ended
	Readers      int    // that follow now
	ReadersCut   uint64 // cut off because they read too slowly
	// KeysGood, KeysBad and KeysUnknown count answers about readers' API keys;
	// the last are those that nobody gave.
	KeysGood, KeysBad, KeysUnknown uint64
	// Forwarded, Refused and Failed count live checks that were asked through.
	Forwarded, Refused, Failed uint64
}

// Stats returns the present state. It is cheap enough for every scrape.
func (r *Relay) Stats() Stats {
	v, s := r.verifier.Stats(), r.server.Stats()
	return Stats{
		Ready: r.Ready(), Connected: v.Connected, Upstream: r.up.where(), Level: r.hub.level.Load(),
		FeedAge: v.FeedAge, FeedAgeKnown: v.FeedAgeKnown, EventLag: v.EventLag, Position: v.Position, KeyVersion: v.KeyVersion,
		Events: v.Events, Skipped: v.Skipped, Reconnects: v.Reconnects, Readers: s.Streams, ReadersCut: s.Cut,
		KeysGood: r.readers.good.Load(), KeysBad: r.readers.bad.Load(), KeysUnknown: r.readers.failed.Load(),
		Forwarded: r.counters.forwards[answered].Load(), Refused: r.counters.forwards[refused].Load(), Failed: r.counters.forwards[failed].Load(),
	}
}

// Metrics serves the figures of [Relay.Stats] in the text format of
// Prometheus. It asks for no credential: serve it on an address that only the
// monitoring reaches (SEC-107).
func (r *Relay) Metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		body := r.metrics()
		h := w.Header()
		h.Set("Content-Type", metrics.ContentType)
		h.Set("Content-Length", strconv.Itoa(len(body)))
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(body) // fails when the client has gone
	})
}

func (r *Relay) metrics() []byte {
	s := r.Stats()
	t := &metrics.Text{}
	gauge := func(name, help string, v float64) {
		t.Gauge(name, help)
		t.Value(v)
	}
	counter := func(name, help string, n uint64) {
		t.Counter(name, help)
		t.Count(n)
	}
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	age := s.FeedAge.Seconds()
	if !s.FeedAgeKnown {
		age = math.Inf(1)
	}
	gauge("counterfoil_relay_level", "How many relays lie between the authority and the readers, this one included.", float64(s.Level))
	gauge("counterfoil_relay_connected", "Whether what is followed beats.", flag(s.Connected))
	gauge("counterfoil_relay_ready", "Whether there is something to serve.", flag(s.Ready))
	counter("counterfoil_relay_reconnects_total", "Streams of what is followed that ended.", s.Reconnects)
	counter("counterfoil_relay_events_total", "Revocations heard.", s.Events)
	counter("counterfoil_relay_unknown_entries_total", "Entries of kinds that this version does not know; they are passed on.", s.Skipped)
	gauge("counterfoil_feed_age_seconds", "Time since the last full read of the authority's store; +Inf while nobody knows.", age)
	gauge("counterfoil_relay_event_lag_seconds", "How long the last revocations were under way from the store, at most.", s.EventLag.Seconds())
	pos, _ := feed.ParsePosition(s.Position) // empty: both are 0
	gauge("counterfoil_feed_position", "Everything in the feed log at or below it is known here.", float64(pos.Seq))
	gauge("counterfoil_feed_timeline", "The history that the position belongs to; it changes when a backup was restored.", float64(pos.Timeline))
	gauge("counterfoil_feed_readers", "Verifiers and relays that follow this one.", float64(s.Readers))
	counter("counterfoil_feed_readers_cut_total", "Readers cut off because they read too slowly; each comes back and goes on where it was.", s.ReadersCut)
	t.Durations("counterfoil_verifier_lag_seconds", "Staleness as reported by readers.")
	t.Distribution(r.counters.lag.Distribution())
	gauge("counterfoil_key_version", "Version of the key set that is served.", float64(s.KeyVersion))
	t.Counter("counterfoil_relay_key_checks_total", "Questions about readers' API keys, by answer.")
	t.Count(s.KeysGood, metrics.Label{Name: "outcome", Value: "good"})
	t.Count(s.KeysBad, metrics.Label{Name: "outcome", Value: "bad"})
	t.Count(s.KeysUnknown, metrics.Label{Name: "outcome", Value: "failed"})
	t.Counter("counterfoil_relay_live_checks_total", "Live checks that were asked through.")
	t.Count(s.Forwarded, metrics.Label{Name: "outcome", Value: "answered"})
	t.Count(s.Refused, metrics.Label{Name: "outcome", Value: "refused"})
	t.Count(s.Failed, metrics.Label{Name: "outcome", Value: "failed"})
	return t.Bytes()
}
