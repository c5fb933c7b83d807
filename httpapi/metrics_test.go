package httpapi_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/memstore"
)

// newCounted is a site that counts.
func newCounted(t testing.TB) (*site, *httpapi.Metrics) {
	s := newGate(t)
	m := httpapi.NewMetrics(s.auth)
	s.handler = httpapi.Handler(s.auth, httpapi.WithDirectory(s.users), httpapi.WithOrigins(friend), httpapi.WithMetrics(m))
	return s, m
}

var (
	sampleLine = regexp.MustCompile(`^([a-z_]+)(\{[a-z]+="(?:[^"\\]|\\.)*"(?:,[a-z]+="(?:[^"\\]|\\.)*")*\})? (\S+)$`)
	familyLine = regexp.MustCompile(`^# (HELP|TYPE) (counterfoil_[a-z_]+) (\S.*)$`)
)

// scrape reads the metrics as a monitoring does, and holds them against the
// text format: each family once, told before its samples, no sample twice.
func scrape(t testing.TB, m *httpapi.Metrics) map[string]float64 {
	t.Helper()
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	samples, kinds, helped := map[string]float64{}, map[string]string{}, map[string]bool{}
	family := ""
	lines := bufio.NewScanner(bytes.NewReader(w.Body.Bytes()))
	for lines.Scan() {
		line := lines.Text()
		if f := familyLine.FindStringSubmatch(line); f != nil {
			switch family = f[2]; {
			case f[1] == "HELP" && helped[family], f[1] == "TYPE" && (kinds[family] != "" || !helped[family]):
				t.Errorf("out of order: %s", line)
			case f[1] == "HELP":
				helped[family] = true
			default:
				kinds[family] = f[3]
			}
			continue
		}
		f := sampleLine.FindStringSubmatch(line)
		if f == nil {
			t.Errorf("not of the format: %q", line)
			continue
		}
		name := f[1]
		if kinds[family] == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				name = strings.TrimSuffix(name, suffix)
			}
		}
		value, err := strconv.ParseFloat(f[3], 64)
		if _, twice := samples[f[1]+f[2]]; twice || err != nil || name != family || kinds[family] == "" {
			t.Errorf("bad sample %q of %s", line, family)
		}
		if strings.HasSuffix(f[1], "_total") != (kinds[family] == "counter") {
			t.Errorf("the name does not go with the kind %s: %s", kinds[family], line)
		}
		samples[f[1]+f[2]] = value
	}
	return samples
}

func TestMetrics(t *testing.T) {
	s, m := newCounted(t)
	user := s.signUp("ann@example.org")
	token := user.text("session_token")
	jar := []string{cookie + "=" + token}
	for range 3 {
		s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: token}), 200)
	}
	s.wants(s.do(ask{method: "POST /v1/auth/refresh"}), 401)
	s.wants(s.do(ask{method: "GET /oauth2/userinfo", bearer: "x.y.z"}), 401)
	s.wants(s.do(ask{method: "HEAD /v1/auth/session"}), 401)
	s.wants(s.do(ask{method: "GET /v1/nothing", any: true}), 404)
	s.wants(s.do(ask{method: "DELETE /v1/sessions/" + user.sid(), bearer: s.key}), 204)
	s.refusedAtGate(s.gate("", ask{cookies: jar}), 401, "session_revoked")
	s.wants(s.do(ask{method: "GET /v1/revocations/clock", bearer: s.key, header: []string{feed.LagHeader, "40"}}), 200)
	// A page of the application: it is not served by this package, and counts all the same.
	s.auth.Browser()(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "https://app.example/", nil))

	got := scrape(t, m)
	for sample, want := range map[string]float64{
		`counterfoil_sign_ins_total{outcome="ok"}`: 1, `counterfoil_refreshes_total{outcome="ok"}`: 3, `counterfoil_refreshes_total{outcome="refused"}`: 1,
		`counterfoil_mints_total`: 4, `counterfoil_revocations_total{kind="session"}`: 1, `counterfoil_revocations_total{kind="key"}`: 0,
		`counterfoil_refusals_total{code="credential_missing"}`: 3, `counterfoil_refusals_total{code="token_invalid"}`: 1, `counterfoil_refusals_total{code="not_found"}`: 1,
		`counterfoil_refusals_total{code="session_revoked"}`: 1, `counterfoil_refusals_total{code="other"}`: 0,
		`counterfoil_http_requests_total{route="refresh",status="2xx"}`: 3, `counterfoil_http_requests_total{route="refresh",status="4xx"}`: 1,
		`counterfoil_http_requests_total{route="userinfo",status="4xx"}`: 1, `counterfoil_http_requests_total{route="gateway",status="4xx"}`: 1, `counterfoil_http_requests_total{route="none",status="4xx"}`: 1,
		`counterfoil_http_request_duration_seconds_count{route="refresh"}`: 4, `counterfoil_http_request_duration_seconds_bucket{route="refresh",le="+Inf"}`: 4,
		`counterfoil_verifier_lag_seconds_bucket{le="0.025"}`: 0, `counterfoil_verifier_lag_seconds_bucket{le="0.05"}`: 1, `counterfoil_verifier_lag_seconds_sum`: 0.04,
		`counterfoil_feed_readers`: 0, `counterfoil_feed_readers_cut_total`: 0, `counterfoil_store_errors_total`: 0,
	} {
		if value, ok := got[sample]; !ok || value != want {
			t.Errorf("%s is %v (%v), want %v", sample, value, ok, want)
		}
	}
	for _, name := range []string{"counterfoil_feed_age_seconds", "counterfoil_feed_position", "counterfoil_touches_pending"} {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
}

// No client makes a new series, whatever it sends.
func TestMetricsAreBounded(t *testing.T) {
	s, m := newCounted(t)
	token := s.signUp("ann@example.org").text("session_token")
	drive := func(seed string) {
		for _, method := range []string{"GET", "HEAD", "POST", "DELETE", "OPTIONS", "X" + strings.ToUpper(seed)} {
			for _, path := range []string{"/v1/" + seed, "/v1/sessions/" + seed, "/v1/users/" + seed + "/sessions", "/v1/gateway/" + seed, "/v1/auth/refresh", "/oauth2/userinfo?" + seed + "=1"} {
				for _, credential := range []string{"", token, seed, s.key} {
					s.do(ask{method: method, path: path, bearer: credential, any: true, header: []string{feed.LagHeader, seed, "Origin", "https://" + seed + ".example"}})
				}
			}
		}
	}
	drive("first")
	before := scrape(t, m)
	for i := range 3 {
		drive(fmt.Sprintf("again%c", 'a'+i))
	}
	after := scrape(t, m)
	for name := range after {
		if _, ok := before[name]; !ok {
			t.Errorf("a new series: %s", name)
		}
	}
	// Nothing of users, sessions or keys is in a label.
	for name := range after {
		for _, bit := range []string{"first", "again", "ann", "cf_"} {
			if strings.Contains(name, bit) {
				t.Errorf("%s tells of %q", name, bit)
			}
		}
	}
}

// Every code and every route that is documented has its series before it is needed.
func TestMetricsKnowEveryCodeAndRoute(t *testing.T) {
	s, m := newCounted(t)
	got := scrape(t, m)
	for path, methods := range s.doc.Paths {
		for method, op := range methods {
			if _, ok := got[`counterfoil_http_request_duration_seconds_count{route="`+op.OperationID+`"}`]; !ok {
				t.Errorf("%s %s is not counted", method, path)
			}
			for _, response := range op.Responses {
				for _, content := range response.Content {
					for _, part := range content.Schema.AllOf {
						for _, code := range part.Properties["code"].Enum {
							if _, ok := got[`counterfoil_refusals_total{code="`+code+`"}`]; !ok {
								t.Errorf("the code %s is not counted", code)
							}
						}
					}
				}
			}
		}
	}
}

// SEC-107: no metrics on the public address.
func TestSEC107NoPublicMetrics(t *testing.T) {
	s, m := newCounted(t)
	for _, path := range []string{"/metrics", "/v1/metrics", "/debug/pprof/", "/debug/vars"} {
		s.wants(s.do(ask{method: "GET " + path, any: true}), 404)
		s.wants(s.do(ask{method: "GET " + path, bearer: s.key, any: true}), 404)
	}
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest("POST", "/metrics", nil))
	if w.Code != 405 {
		t.Errorf("POST: %d", w.Code)
	}
}

func BenchmarkMetrics(b *testing.B) {
	s, m := newCounted(b)
	s.signUp("ann@example.org")
	r := httptest.NewRequest("GET", "/metrics", nil)
	for b.Loop() {
		m.ServeHTTP(httptest.NewRecorder(), r)
	}
}

// An application's own users: what it does not mount is not counted.
func TestMetricsOfOneHandler(t *testing.T) {
	auth, err := counterfoil.New(t.Context(), memstore.New(), counterfoil.Config{
		Issuer: issuer, Audiences: []string{"app"}, Seal: counterfoil.SealText(secret64),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer auth.Close()
	m := httpapi.NewMetrics(auth)
	httpapi.Device(auth, httpapi.WithMetrics(m))
	got := scrape(t, m)
	if _, ok := got[`counterfoil_http_request_duration_seconds_count{route="refresh"}`]; !ok {
		t.Error("refresh is missing")
	}
	if _, ok := got[`counterfoil_http_request_duration_seconds_count{route="introspect"}`]; ok {
		t.Error("introspect is counted though it is not served")
	}
}
