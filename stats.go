package counterfoil

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/metrics"
	"github.com/counterfoil/counterfoil/verify"
)

// Outcomes counts how calls ended.
type Outcomes struct {
	OK uint64
	// Refused are those whose answer is no: the session has ended, the request
	// was wrong.
	Refused uint64
	// Failed are those that could not be answered: the store, a hook, the clock.
	Failed uint64
}

// Distribution says how many durations fell into which bucket.
type Distribution = metrics.Distribution

// Stats is what an [Authority] of this process has done since [New], and how
// it is now. Package httpapi writes it for Prometheus; see docs/metrics.md.
type Stats struct {
	SignIns    Outcomes // StartSession
	Refreshes  Outcomes // Refresh, those behind Browser and the gateway included
	LiveChecks Outcomes // of this process's verifiers, introspection included
	Mints      uint64   // access tokens signed, for whatever reason
	// DegradedMints are those of them that came from a copy of the session,
	// while the store did not answer ([Config.Degraded]). Degraded says that it
	// does not now, and DegradedCopies of how many sessions there are copies.
	DegradedMints  uint64
	Degraded       bool
	DegradedCopies int

	// Revocations that were committed through this node, by what they are of:
	// a session (also one that had ended before), all sessions of a subject, a
	// subject's rights, a signing key.
	SessionsRevoked uint64
	SubjectsRevoked uint64
	RightsChanged   uint64
	KeysRevoked     uint64

	// BrowserRefusals are the requests that [Authority.Browser] has refused, by
	// code; those that a hook has answered too. Codes that did not come up are missing.
	BrowserRefusals map[string]uint64

	// StoreErrors are calls and background work that the store failed.
	StoreErrors uint64

	TouchesPending int    // last uses of sessions that wait to be written
	Touches        uint64 // written

	Sweeps         Outcomes
	SessionsPurged uint64 // deleted after their retention
	EntriesPruned  uint64 // of the feed log, that no living token needs

	// FeedAge is how long ago the last full read of the feed log began; what
	// was committed elsewhere since may not be known here.
	FeedAge      time.Duration
	FeedTimeline int64
	FeedPosition int64
	// FeedReaders are the verifiers that follow this node now.
	FeedReaders int
	// FeedCut counts those that were cut off because they read too slowly.
	// Each comes back, and goes on where it was.
	FeedCut uint64
	// Watches are those of [Authority.WatchSession] that were not stopped.
	Watches int
	// VerifierLag is the staleness that verifiers elsewhere report when they
	// ask for the feed's clock.
	VerifierLag Distribution
	KeyVersion  int64 // of the key set that this node signs with
}

// outcomes counts as [Outcomes] shows.
type outcomes struct{ ok, refused, failed atomic.Uint64 }

func (o *outcomes) count(err error) {
	switch {
	case err == nil:
		o.ok.Add(1)
	case errors.Is(err, context.Canceled): // whoever asked has gone
	case isRefusal(err):
		o.refused.Add(1)
	default:
		o.failed.Add(1)
	}
}

func isRefusal(err error) bool {
	var field *FieldError
	return errors.As(err, &field) || errors.Is(err, verify.ErrUnauthenticated) || errors.Is(err, verify.ErrForbidden) ||
		errors.Is(err, ErrSignedOutMeanwhile) || errors.Is(err, ErrSubjectDisabled)
}

func (o *outcomes) shown() Outcomes {
	return Outcomes{OK: o.ok.Load(), Refused: o.refused.Load(), Failed: o.failed.Load()}
}

// counters are what Stats is made of.
type counters struct {
	signIns, refreshes, liveChecks, sweeps                       outcomes
	mints, storeErrors, touches                                  atomic.Uint64
	sessionsRevoked, subjectsRevoked, rightsChanged, keysRevoked atomic.Uint64
	sessionsPurged, entriesPruned                                atomic.Uint64
	browserRefusals                                              refusals
	verifierLag                                                  *metrics.Histogram
}

func newCounters() *counters {
	const ms = time.Millisecond
	return &counters{browserRefusals: newRefusals(), verifierLag: metrics.NewHistogram(5*ms, 10*ms, 25*ms, 50*ms, 100*ms, 250*ms, 500*ms,
		time.Second, 2500*ms, 5*time.Second, 10*time.Second, 30*time.Second, time.Minute, 5*time.Minute)}
}

func (c *counters) revoked(list []Revocation) {
	for i := range list {
		switch e := &list[i]; {
		case e.Kind == verify.RevokeSession:
			c.sessionsRevoked.Add(1)
		case e.Kind == verify.RevokeSubject && e.RevokedBelow > 0:
			c.subjectsRevoked.Add(1)
		case e.Kind == verify.RevokeSubject:
			c.rightsChanged.Add(1)
		case e.Kind == verify.RevokeKey:
			c.keysRevoked.Add(1)
		}
	}
}

// Stats returns what this authority has done, and how it is.
func (a *Authority) Stats() Stats {
	c, f := a.counters, a.follower.server.Stats()
	s := Stats{
		SignIns: c.signIns.shown(), Refreshes: c.refreshes.shown(), LiveChecks: c.liveChecks.shown(), Mints: c.mints.Load(),
		SessionsRevoked: c.sessionsRevoked.Load(), SubjectsRevoked: c.subjectsRevoked.Load(), RightsChanged: c.rightsChanged.Load(), KeysRevoked: c.keysRevoked.Load(),
		BrowserRefusals: c.browserRefusals.shown(), StoreErrors: c.storeErrors.Load(),
		TouchesPending: a.touches.waiting(), Touches: c.touches.Load(),
		Sweeps: c.sweeps.shown(), SessionsPurged: c.sessionsPurged.Load(), EntriesPruned: c.entriesPruned.Load(),
		FeedAge: f.Age, FeedTimeline: f.Position.Timeline, FeedPosition: f.Position.Seq, FeedReaders: f.Streams, FeedCut: f.Cut, Watches: a.watches.len(),
		VerifierLag: c.verifierLag.Distribution(), KeyVersion: a.keys.Load().version,
	}
	if d := a.degraded; d != nil {
		s.DegradedMints, s.DegradedCopies = d.mints.Load(), d.copies.len()
		_, s.Degraded = d.outage.since()
	}
	return s
}

// longestLag bounds what is believed of a report.
const longestLag = 24 * time.Hour

// noteLag counts what a verifier reports. A report that makes no sense is none.
func (c *counters) noteLag(r *http.Request) {
	ms, err := strconv.ParseUint(r.Header.Get(feed.LagHeader), 10, 32)
	if lag := time.Duration(ms) * time.Millisecond; err == nil && lag <= longestLag {
		c.verifierLag.Observe(lag)
	}
}
