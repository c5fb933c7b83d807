//go:build linux

package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// client is one of those who make the load. Where a node does not serve, it
// asks the next, as a load balancer would.
type client struct {
	s      *system
	id     int
	http   *http.Client
	random *rand.Rand
	at     int // the node it asked last

	now *subject
	old []*subject
}

// attemptTimeout is how long a client waits for one answer.
const attemptTimeout = 3 * time.Second

// answer is what a call was answered with; the status is 0 if with nothing.
type answer struct {
	status       int
	code         string
	accessToken  string
	sessionToken string
	sid          string
	id           string
	problem      string // the whole of a bad answer
}

func newHTTPClient() *http.Client {
	return &http.Client{
		Timeout:   attemptTimeout,
		Transport: &http.Transport{MaxIdleConnsPerHost: 4, ResponseHeaderTimeout: attemptTimeout},
	}
}

// request makes one request to one node.
func request(ctx context.Context, c *http.Client, method, url, bearer, body string) answer {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return answer{problem: err.Error()}
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	response, err := c.Do(r)
	if err != nil {
		return answer{problem: err.Error()}
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{problem: err.Error()} // nothing was acknowledged
	}
	var in struct {
		Code         string `json:"code"`
		AccessToken  string `json:"access_token"`
		SessionToken string `json:"session_token"`
		ID           string `json:"id"`
		Session      struct {
			SID string `json:"sid"`
		} `json:"session"`
	}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &in); err != nil {
			return answer{problem: err.Error()}
		}
	}
	a := answer{status: response.StatusCode, code: in.Code, accessToken: in.AccessToken, sessionToken: in.SessionToken, sid: in.Session.SID, id: in.ID}
	if a.status >= 300 {
		a.problem = fmt.Sprintf("%d %s", a.status, text)
	}
	if a.status == http.StatusServiceUnavailable && response.Header.Get("Retry-After") == "" {
		a.code += " without Retry-After"
	}
	return a
}

// unavailable reports whether the answer is one that a client tries again
// after: none, or a 503 that says so.
func (a answer) unavailable() bool {
	return a.status == 0 || a.status == http.StatusServiceUnavailable && a.code == "unavailable"
}

var errStopped = errors.New("the load ends")

// call repeats a request until a node answers with something definite: judge
// says what is, beside success.
func (c *client) call(k kind, method, path, bearer, body string, judge func(began, ended time.Time, a answer, node string) bool) (a answer, err error) {
	asked := time.Now()
	wait := 5 * time.Millisecond
	for tries := 0; ; tries++ {
		node := c.s.nodes[c.at%len(c.s.nodes)]
		began := time.Now()
		// Not bounded by the end of the load: what was sent is to be known.
		a = request(context.Background(), c.http, method, node.url+path, bearer, body)
		ended := time.Now()
		ok := a.status >= 200 && a.status < 300
		if judge != nil && judge(began, ended, a, node.url) {
			ok = true
		}
		c.s.outages.attempt(k, ok, asked, began, ended)
		if ok {
			return a, nil
		}
		if !a.unavailable() {
			c.s.oracle.problem("%s at %s was answered with %s", k, node.url, a.problem)
			return a, errors.New(a.problem)
		}
		c.at++
		if c.s.stopped(c.s.hard) {
			return a, errStopped
		}
		if c.s.stopped(c.s.soft) && tries > 2*len(c.s.nodes) {
			return a, errStopped
		}
		if tries >= len(c.s.nodes)-1 {
			pause(c.s.hard, wait)
			wait = min(2*wait, 100*time.Millisecond)
		}
	}
}

// pause waits, or until the context ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// run makes calls until the load ends.
func (c *client) run() {
	for !c.s.stopped(c.s.soft) {
		c.choose()
		var err error
		switch n := c.random.IntN(100); {
		case n < 40:
			err = c.signIn()
		case n < 80:
			err = c.refresh(c.s.oracle.some(c.random.IntN(200)))
		case n < 93:
			err = c.revokeOne()
		case n < 97:
			err = c.revokeAll()
		default:
			err = c.refresh(c.s.oracle.lastRevoked(c.random.IntN(20)))
		}
		if err != nil && !errors.Is(err, errStopped) {
			return
		}
		pause(c.s.soft, time.Duration(1+c.random.IntN(int(c.s.pace))))
	}
}

// choose takes a node that said that it is ready, and now and then any: a
// load balancer knows late.
func (c *client) choose() {
	c.at = c.random.IntN(len(c.s.nodes))
	if c.random.IntN(10) > 0 && !c.s.up[c.at].Load() {
		c.at++
	}
}

var subjects atomic.Int64

// signIn starts a session, sometimes of a new user.
func (c *client) signIn() error {
	if c.now == nil || len(c.now.sessions) > 4 {
		if c.now != nil {
			c.old = append(c.old, c.now)
		}
		c.now = nil
		n := subjects.Add(1)
		if c.random.IntN(8) > 0 {
			c.now = &subject{id: fmt.Sprintf("user-%d", n)}
		} else if err := c.signUp(n); err != nil {
			return err
		}
	}
	a, err := c.call(signIn, "POST", "/v1/sessions", c.s.key, `{"subject":"`+c.now.id+`"}`, nil)
	if err != nil {
		return err
	}
	s := &session{sid: a.sid, token: a.sessionToken, of: c.now}
	if s.sid == "" || s.token == "" {
		return errors.New("a sign-in without session")
	}
	c.s.oracle.signedIn(s, a.accessToken)
	return nil
}

// signUp adds a user to the directory. An address is not used twice: a first
// attempt may have been carried out.
func (c *client) signUp(n int64) error {
	for try := 0; ; try++ {
		node := c.s.nodes[c.at%len(c.s.nodes)]
		a := request(context.Background(), c.http, "POST", node.url+"/v1/users", c.s.key, fmt.Sprintf(`{"email":"u%d.%d@example.org"}`, n, try))
		if a.status == http.StatusCreated {
			c.now = &subject{id: a.id, user: true}
			return nil
		}
		if !a.unavailable() {
			c.s.oracle.problem("a new user at %s was answered with %s", node.url, a.problem)
			return errors.New(a.problem)
		}
		c.at++
		if c.s.stopped(c.s.soft) {
			return errStopped
		}
		pause(c.s.soft, 20*time.Millisecond)
	}
}

func (c *client) refresh(s *session) error {
	if s == nil {
		return nil
	}
	_, err := c.call(refresh, "POST", "/v1/auth/refresh", s.token, "", func(began, ended time.Time, a answer, node string) bool {
		return c.s.oracle.refreshed(s, began, ended, a, node)
	})
	return err
}

// revokeOne ends one session of the present subject.
func (c *client) revokeOne() error {
	if c.now == nil || len(c.now.sessions) == 0 {
		return nil
	}
	s := c.now.sessions[c.random.IntN(len(c.now.sessions))]
	return c.end(revoke, []*session{s}, "DELETE", "/v1/sessions/"+s.sid, "")
}

// revokeAll ends all sessions of an earlier subject. Nobody signs in for it
// any more: an attempt that was not answered may be carried out late.
func (c *client) revokeAll() error {
	if len(c.old) == 0 {
		return nil
	}
	at := c.random.IntN(len(c.old))
	u := c.old[at]
	c.old = append(c.old[:at], c.old[at+1:]...)
	if u.user {
		return c.end(disable, u.sessions, "PATCH", "/v1/users/"+u.id, `{"disabled":true}`)
	}
	return c.end(everywhere, u.sessions, "DELETE", "/v1/users/"+u.id+"/sessions", "")
}

func (c *client) end(k kind, list []*session, method, path, body string) error {
	c.s.oracle.revoking(list)
	a, err := c.call(k, method, path, c.s.key, body, func(_, _ time.Time, a answer, _ string) bool {
		return a.code == "not_found" && c.s.oracle.mayBeLost(list[0])
	})
	if err == nil && a.code == "" {
		c.s.oracle.revoked(list, time.Now())
	}
	return err
}
