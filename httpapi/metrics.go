package httpapi

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/metrics"
	"github.com/counterfoil/counterfoil/internal/stamp"
	"github.com/counterfoil/counterfoil/verify"
)

// Metrics counts what handlers that were built with [WithMetrics] answer, and
// serves it, with the figures of [counterfoil.Authority.Stats], in the text format
// of Prometheus. docs/metrics.md lists them.
//
// It asks for no credential. Serve it on an address that only the monitoring
// reaches, never beside the public handlers (SEC-107).
type Metrics struct {
	auth     *counterfoil.Authority
	refusals map[string]*atomic.Uint64 // by code, all of them from the start

	none *traffic

	mu     sync.Mutex
	routes map[string]*traffic // by name, all of them from the building of handlers
}

// NewMetrics returns metrics of an authority.
func NewMetrics(auth *counterfoil.Authority) *Metrics {
	m := &Metrics{auth: auth, refusals: make(map[string]*atomic.Uint64), routes: make(map[string]*traffic)}
	for _, code := range codes {
		m.refusals[code] = new(atomic.Uint64)
	}
	m.none = m.route(noRoute)
	return m
}

// WithMetrics counts what the handler answers.
func WithMetrics(m *Metrics) Option { return func(a *api) { a.metrics = m } }

// otherCode stands for codes that are none of ours, noRoute for paths that are none.
const (
	otherCode = "other"
	noRoute   = "none"
)

// codes are those that answers carry: the only values that the label has.
var codes = []string{
	verify.CodeTokenInvalid, verify.CodeTokenExpired, verify.CodeTokenStale, verify.CodeTokenRevoked, verify.CodeTokenTooOld,
	verify.CodeAudienceMismatch, verify.CodeInsufficientScope, verify.CodeInsufficientAuth,
	verify.CodeSessionRevoked, verify.CodeSessionExpired, verify.CodeSessionUnknown,
	verify.CodeCredentialMissing, verify.CodeCredentialAmbiguous, verify.CodeProofRequired, verify.CodeInvalidRequest, verify.CodeUnavailable,
	codeInvalidCredentials, codeConflict, codeRateLimited, codeNotFound, codeInternal, otherCode,
}

// traffic is what went through one route.
type traffic struct {
	classes [6]atomic.Uint64 // by the first digit of the status
	took    *metrics.Histogram
}

// route returns the counters of a route, the same for handlers that share it.
func (m *Metrics) route(name string) *traffic {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.routes[name]
	if t == nil {
		const ms = time.Millisecond
		t = &traffic{took: metrics.NewHistogram(ms, 2*ms, 5*ms, 10*ms, 25*ms, 50*ms, 100*ms, 250*ms, 500*ms, time.Second, 2500*ms, 5*time.Second, 10*time.Second)}
		m.routes[name] = t
	}
	return t
}

// count is told of each answer.
func (m *Metrics) count(o *observed, took time.Duration) {
	t := o.traffic
	if t == nil {
		t = m.none
	}
	t.took.Observe(took)
	if class := o.status / 100; class > 0 && class < len(t.classes) {
		t.classes[class].Add(1)
	}
	if o.code != "" {
		n := m.refusals[o.code]
		if n == nil {
			n = m.refusals[otherCode]
		}
		n.Add(1)
	}
}

// ServeHTTP writes the metrics.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	body := m.text()
	h.Set("Content-Type", metrics.ContentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodGet {
		// A write fails when the reader has gone.
		_, _ = w.Write(body)
	}
}

func (m *Metrics) text() []byte {
	t := &metrics.Text{}
	version, goVersion := buildOf()
	t.Gauge("counterfoil_build_info", "The version that runs; always 1.")
	t.Value(1, metrics.Label{Name: "version", Value: version}, metrics.Label{Name: "goversion", Value: goVersion})
	s := m.auth.Stats()
	writeStats(t, s)
	m.writeAnswers(t, s.BrowserRefusals)
	return t.Bytes()
}

func writeStats(t *metrics.Text, s counterfoil.Stats) {
	outcomes := func(name, help string, o counterfoil.Outcomes) {
		t.Counter(name, help)
		t.Count(o.OK, metrics.Label{Name: "outcome", Value: "ok"})
		t.Count(o.Refused, metrics.Label{Name: "outcome", Value: "refused"})
		t.Count(o.Failed, metrics.Label{Name: "outcome", Value: "failed"})
	}
	counter := func(name, help string, n uint64) {
		t.Counter(name, help)
		t.Count(n)
	}
	gauge := func(name, help string, v float64) {
		t.Gauge(name, help)
		t.Value(v)
	}
	outcomes("counterfoil_sign_ins_total", "Sessions that were to be started.", s.SignIns)
	outcomes("counterfoil_refreshes_total", "Session tokens that were to be traded for an access token.", s.Refreshes)
	outcomes("counterfoil_live_checks_total", "Access tokens about which the store was asked.", s.LiveChecks)
	counter("counterfoil_mints_total", "Access tokens signed.", s.Mints)
	counter("counterfoil_degraded_mints_total", "Access tokens signed from a copy of the session while the store did not answer.", s.DegradedMints)
	gauge("counterfoil_degraded", "1 while the store does not answer and degraded minting is on.", indicator(s.Degraded))
	gauge("counterfoil_degraded_copies", "Sessions of which there is a copy to mint from.", float64(s.DegradedCopies))

	t.Counter("counterfoil_revocations_total", "Revocations committed through this node, by what they are of.")
	for _, kind := range []struct {
		name string
		n    uint64
	}{{"session", s.SessionsRevoked}, {"subject", s.SubjectsRevoked}, {"rights", s.RightsChanged}, {"key", s.KeysRevoked}} {
		t.Count(kind.n, metrics.Label{Name: "kind", Value: kind.name})
	}

	gauge("counterfoil_feed_age_seconds", "Time since the last full read of the feed log began.", s.FeedAge.Seconds())
	gauge("counterfoil_feed_position", "Everything in the feed log at or below it is known here.", float64(s.FeedPosition))
	gauge("counterfoil_feed_timeline", "The history that the position belongs to; it changes when a backup was restored.", float64(s.FeedTimeline))
	gauge("counterfoil_feed_readers", "Verifiers that follow this node.", float64(s.FeedReaders))
	counter("counterfoil_feed_readers_cut_total", "Verifiers cut off because they read too slowly; each comes back and goes on where it was.", s.FeedCut)
	gauge("counterfoil_session_watches", "Pages that hold a stream to learn when their session ends.", float64(s.Watches))
	t.Durations("counterfoil_verifier_lag_seconds", "Staleness as reported by verifiers.")
	t.Distribution(s.VerifierLag)
	gauge("counterfoil_key_version", "Version of the key set that this node signs with.", float64(s.KeyVersion))

	counter("counterfoil_store_errors_total", "Calls and background work that the store failed.", s.StoreErrors)
	gauge("counterfoil_touches_pending", "Sessions whose last use is not written yet.", float64(s.TouchesPending))
	counter("counterfoil_touches_total", "Last uses of sessions written.", s.Touches)
	outcomes("counterfoil_sweeps_total", "Runs of the sweep over what is past its retention.", s.Sweeps)
	counter("counterfoil_sessions_purged_total", "Sessions deleted after their retention.", s.SessionsPurged)
	counter("counterfoil_feed_entries_pruned_total", "Entries of the feed log deleted, that no living token needs.", s.EntriesPruned)
}

func indicator(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *Metrics) writeAnswers(t *metrics.Text, browser map[string]uint64) {
	t.Counter("counterfoil_refusals_total", "Answers that were problems, by code, and what Authority.Browser refused.")
	for _, code := range codes {
		t.Count(m.refusals[code].Load()+browser[code], metrics.Label{Name: "code", Value: code})
	}

	m.mu.Lock()
	routes := make(map[string]*traffic, len(m.routes))
	names := make([]string, 0, len(m.routes))
	for name, r := range m.routes {
		routes[name] = r
		names = append(names, name)
	}
	m.mu.Unlock()
	slices.Sort(names)

	t.Counter("counterfoil_http_requests_total", "Requests answered, by route and class of status.")
	for _, name := range names {
		for class := range routes[name].classes {
			// Those that are the rule are there from the start.
			if n := routes[name].classes[class].Load(); n > 0 || class == 2 || class == 4 || class == 5 {
				t.Count(n, metrics.Label{Name: "route", Value: name}, metrics.Label{Name: "status", Value: strconv.Itoa(class) + "xx"})
			}
		}
	}
	t.Durations("counterfoil_http_request_duration_seconds", "Time from a request's head to the end of its answer, by route.")
	for _, name := range names {
		t.Distribution(routes[name].took.Distribution(), metrics.Label{Name: "route", Value: name})
	}
}

// buildOf is the version of this module in the program, and of Go.
func buildOf() (version, goVersion string) {
	if stamp.Version != "" {
		return stamp.Version, runtime.Version()
	}
	version = "unknown"
	const module = "github.com/counterfoil/counterfoil"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
			if m.Path == module && m.Version != "" {
				version = m.Version
			}
		}
	}
	return version, runtime.Version()
}
