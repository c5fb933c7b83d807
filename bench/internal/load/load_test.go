package load

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	var seen atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		body, err := io.ReadAll(r.Body)
		switch {
		case err != nil:
			t.Error(err)
		case r.URL.Path == "/gone":
			w.WriteHeader(http.StatusNoContent)
		case r.URL.Path == "/wrong":
			http.Error(w, "no", http.StatusTeapot)
		default:
			w.Write(append([]byte(r.Header.Get("X-Say")+" "), body...))
		}
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")

	var requests [][]byte
	for range 50 {
		requests = append(requests, Request("POST", "/", address, "body", "X-Say: hello"))
	}
	var kept atomic.Int64
	plan := Plan{Address: address, Connections: 4, Duration: time.Minute, Next: Once(requests), Status: 200,
		Keep: func(body []byte) {
			if !bytes.Equal(body, []byte("hello body")) {
				t.Errorf("answered %q", body)
			}
			kept.Add(1)
		}}
	r, err := Run(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	if r.Requests != 50 || seen.Load() != 50 || kept.Load() != 50 || len(r.Latencies) != 50 {
		t.Errorf("%d requests, %d seen, %d kept, %d latencies", r.Requests, seen.Load(), kept.Load(), len(r.Latencies))
	}
	if p50, p99 := r.Percentile(50), r.Percentile(99); p50 <= 0 || p99 < p50 || r.Rate() <= 0 {
		t.Errorf("p50 %s, p99 %s, rate %f", p50, p99, r.Rate())
	}

	plan.Duration, plan.Keep, plan.Status = 20*time.Millisecond, nil, 204
	plan.Next = Repeat([][]byte{Request("DELETE", "/gone", address, "")})
	if r, err = Run(t.Context(), plan); err != nil || r.Requests == 0 || r.Took > 10*time.Second {
		t.Errorf("by time: %d requests in %s, %v", r.Requests, r.Took, err)
	}

	plan.Next = Repeat([][]byte{Request("GET", "/wrong", address, "")})
	if _, err = Run(t.Context(), plan); err == nil || !strings.Contains(err.Error(), "418") {
		t.Errorf("a wrong answer: %v", err)
	}
}

func TestOfNobody(t *testing.T) {
	var none Result
	if none.Percentile(99) != 0 {
		t.Error("the latency of no request is not zero")
	}
}
