package examples_test

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Open connections end with the session that opened them, within the lag.
func TestSEC32ChatIsCutWithTheSession(t *testing.T) {
	auth := startAuthority(t, "--audience", "chat")
	service := start(t, []string{
		"COUNTERFOIL_ISSUER=" + issuer, "COUNTERFOIL_AUTHORITY=" + auth.url,
		"COUNTERFOIL_API_KEY=" + auth.apiKey("--name", "chat", "--scope", "verify"),
	}, build(t, "examples/chat"), "--listen", "127.0.0.1:0")
	url := service.says(`chat on (http://\S+)`)
	signIn := func(subject string) answer {
		t.Helper()
		return auth.post("/v1/sessions", object{"subject": subject, "amr": []string{"pwd"}}).want(t, 201, "")
	}
	end := func(sid string) {
		t.Helper()
		call(t, "DELETE", auth.url+"/v1/sessions/"+sid, nil, "Authorization", "Bearer "+auth.key).want(t, 204, "")
	}
	ann, bob := signIn("ann"), signIn("bob")
	annHears, bobHears := hear(t, url, ann.AccessToken), hear(t, url, bob.AccessToken)
	annHears.want("open", `"id":`)
	stream := bobHears.want("open", `"id":`)
	id := strings.Split(stream, `"`)[3]

	say := func(token, text string) answer {
		t.Helper()
		return call(t, "POST", url+"/messages", object{"text": text}, "Authorization", "Bearer "+token)
	}
	say(ann.AccessToken, "hello").want(t, 204, "")
	annHears.want("message", `{"from":"ann","text":"hello"}`)
	bobHears.want("message", `{"from":"ann","text":"hello"}`)

	// Renewed in band, and by nobody else.
	fresh := call(t, "POST", auth.url+"/v1/auth/refresh", object{}, "Authorization", "Bearer "+bob.SessionToken).want(t, 200, "")
	call(t, "PUT", url+"/stream/"+id, nil, "Authorization", "Bearer "+fresh.AccessToken).want(t, 204, "")
	call(t, "PUT", url+"/stream/"+id, nil, "Authorization", "Bearer "+ann.AccessToken).want(t, 401, "token_invalid")

	var lags []time.Duration
	for i := range 10 {
		g := signIn(fmt.Sprint("user-", i))
		hears := hear(t, url, g.AccessToken)
		hears.want("open", `"id":`)
		end(g.Session.SID)
		began := time.Now()
		hears.want("end", `{"code":"token_revoked"}`)
		lags = append(lags, time.Since(began).Round(100*time.Microsecond))
		say(g.AccessToken, "still here?").want(t, 401, "token_revoked")
	}
	t.Logf("after the revoking call had returned, streams ended in %v", lags)

	end(ann.Session.SID)
	annHears.want("end", `{"code":"token_revoked"}`)
	call(t, "POST", auth.url+"/v1/users/bob/rights-changed", object{}, "Authorization", "Bearer "+auth.key).want(t, 204, "")
	bobHears.want("end", `{"code":"token_stale"}`)
}

// hearing reads a stream of server-sent events.
type hearing struct {
	t     *testing.T
	lines *bufio.Scanner
}

func hear(t *testing.T, url, token string) *hearing {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	return &hearing{t, bufio.NewScanner(res.Body)}
}

// want waits for the next event and returns its data.
func (h *hearing) want(event, data string) string {
	h.t.Helper()
	var got []string
	for h.lines.Scan() && h.lines.Text() != "" {
		got = append(got, h.lines.Text())
	}
	if len(got) != 2 || got[0] != "event: "+event || !strings.Contains(got[1], data) {
		h.t.Fatalf("heard %q, %v; want %s with %s", got, h.lines.Err(), event, data)
	}
	return got[1]
}
