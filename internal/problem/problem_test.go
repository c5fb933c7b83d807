package problem

import (
	"encoding/json"
	"math"
	"net/http/httptest"
	"testing"
)

func TestWrite(t *testing.T) {
	for _, tc := range []struct {
		p    Problem
		want string
	}{
		{Problem{Status: 401, Code: "token_expired"}, `{"code":"token_expired","status":401,"title":"Unauthorized"}`},
		{Problem{Status: 400, Code: "invalid_request", Title: "Bad", Detail: "is no e-mail address", Field: "email"},
			`{"code":"invalid_request","detail":"is no e-mail address","field":"email","status":400,"title":"Bad"}`},
		{Problem{Status: 401, Code: "session_revoked", Extra: map[string]any{"sid": "s", "status": 200, "code": "ok", "field": "x", "ended_at": 5}},
			`{"code":"session_revoked","ended_at":5,"sid":"s","status":401,"title":"Unauthorized"}`},
		{Problem{Status: 503, Code: "unavailable", Extra: map[string]any{"x": math.Inf(1)}}, `{"code":"unavailable","status":503}`},
	} {
		w := httptest.NewRecorder()
		w.Header().Set("ETag", "x")
		Write(w, tc.p)
		if got := w.Body.String(); got != tc.want+"\n" || w.Code != tc.p.Status {
			t.Errorf("%d %s\nwant %s", w.Code, got, tc.want)
		}
		if !json.Valid(w.Body.Bytes()) {
			t.Error("no JSON")
		}
		h := w.Header()
		if h.Get("Content-Type") != "application/problem+json" || h.Get("Cache-Control") != "no-store" || h.Get("ETag") != "" {
			t.Errorf("headers %v", h)
		}
	}
}
