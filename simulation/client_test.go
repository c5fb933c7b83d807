package simulation

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// browser is a user's device: one cookie jar, some tabs.
type browser struct {
	w    *world
	name string
	user *user
	step uint64

	mu      sync.Mutex
	jar     string // the session cookie
	session *session
	token   *token
	out     bool // the user has signed out, or was told that the session has ended
}

func (w *world) newBrowser(i int) *browser {
	name := fmt.Sprintf("b%d", i)
	w.model.mu.Lock()
	u := w.app.user(fmt.Sprintf("u%d", i%3))
	w.model.mu.Unlock()
	return &browser{w: w, name: name, user: u}
}

// client makes requests from a host.
func (w *world) client(host string) *http.Client {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			server, _, _ := strings.Cut(addr, ":")
			return w.net.dial(ctx, host, server)
		},
		DisableCompression: true, DisableKeepAlives: true,
	}
	return &http.Client{Transport: t}
}

// answer is what came back.
type answer struct {
	status int
	body   struct {
		Code         string `json:"code"`
		Epoch        int64  `json:"epoch"`
		AccessToken  string `json:"access_token"`
		SessionToken string `json:"session_token"`
		Session      struct {
			SID string `json:"sid"`
		} `json:"session"`
	}
	cookies []*http.Cookie
}

func (a *answer) terminal() bool {
	switch a.body.Code {
	case "session_revoked", "session_expired", "session_unknown":
		return a.status == http.StatusUnauthorized
	}
	return false
}

// request sends one request; the error says that no answer came.
func (w *world) request(ctx context.Context, c *http.Client, method, url string, header map[string]string, in any) (*answer, error) {
	if ctx.Value(patience{}) == nil {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, 4*time.Second)
		defer cancel()
	}
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	res, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	a := &answer{status: res.StatusCode, cookies: res.Cookies()}
	if len(data) > 0 {
		err = json.Unmarshal(data, &a.body)
	}
	return a, err
}

func (b *browser) cookie(jar string) map[string]string {
	return map[string]string{"Cookie": "__Host-counterfoil=" + jar}
}

func (w *world) key() map[string]string {
	return map[string]string{"Authorization": "Bearer " + w.apiKey}
}

func pick[T any](dice *rand.Rand, from []T) T { return from[dice.IntN(len(from))] }

// run does one thing after the other until the run is over. What it tries at each step
// depends on the seed alone.
func (b *browser) run(ctx context.Context) {
	for ctx.Err() == nil {
		b.step++
		dice := rand.New(rand.NewPCG(b.w.seed, b.step<<8|uint64(b.name[1])))
		if sleep(ctx, time.Duration(dice.Int64N(int64(300*time.Millisecond)))) != nil {
			return
		}
		b.act(ctx, dice)
	}
}

func (b *browser) act(ctx context.Context, dice *rand.Rand) {
	n := pick(dice, b.w.nodes)
	s := pick(dice, b.w.services)
	what, route := dice.IntN(100), pick(dice, routes)
	b.mu.Lock()
	have := b.jar != ""
	b.mu.Unlock()
	b.stranded()
	switch {
	case !have:
		b.signIn(ctx, dice, n)
	case what < 40:
		b.visit(ctx, dice, s, n, route)
	case what < 62:
		b.replay(ctx, dice, s, route)
	case what < 74:
		b.refresh(ctx, n)
	case what < 77:
		b.tabs(ctx, dice)
	case what < 83:
		b.signOut(ctx, n, "this")
	case what < 85:
		b.signOut(ctx, n, "all")
	case what < 87:
		b.signOut(ctx, n, "others")
	case what < 90:
		b.w.changePassword(ctx, b, n)
	case what < 95:
		b.w.changeRights(ctx, b.user, n)
	case what < 97:
		b.w.endSession(ctx, dice, n)
	default:
		b.again(ctx, dice, n)
	}
}

// signIn is the application's sign-in: epoch, password, session.
func (b *browser) signIn(ctx context.Context, dice *rand.Rand, n *node) {
	w, c := b.w, b.w.backend
	var epoch *answer
	var err error
	s := &session{user: b.user}
	ask := func() bool {
		s.epochFrom = time.Now()
		epoch, err = w.request(ctx, c, "GET", "http://"+n.name+"/v1/users/"+b.user.name+"/epoch", w.key(), nil)
		s.epochBy = time.Now()
		return err == nil && epoch.status == http.StatusOK
	}
	late := w.planted == "epoch read after the password was checked"
	if !late && !ask() {
		return
	}
	s.pw = w.app.password(b.user.name)
	_ = sleep(ctx, time.Duration(dice.Int64N(int64(200*time.Millisecond)))) // the password's hash
	if late && !ask() {
		return
	}
	start := time.Now()
	at := w.restored.Load()
	a, err := w.request(ctx, c, "POST", "http://"+n.name+"/v1/sessions", w.key(), map[string]any{"subject": b.user.name, "epoch": epoch.body.Epoch})
	if err != nil || a.status != http.StatusCreated {
		w.note("%s sign-in at %s: %v", b.name, n.name, outcome(a, err))
		return
	}
	s.sid, s.secret, s.returned = a.body.Session.SID, a.body.SessionToken, time.Now()
	w.model.mu.Lock()
	if w.restored.Load() != at || s.epochFrom.Before(w.restoredAt) {
		s.lost(s.epochFrom)
	}
	w.model.sessions = append(w.model.sessions, s)
	w.model.mu.Unlock()
	t := w.gave(n, s, a.body.AccessToken, start)
	w.note("%s signed in at %s: %s", b.name, n.name, short(s.sid))
	b.mu.Lock()
	b.jar, b.session, b.token, b.out = s.secret, s, t, false
	b.mu.Unlock()
}

// gave notes an access token.
func (w *world) gave(n *node, s *session, text string, start time.Time) *token {
	t := &token{text: text, session: s, start: start, end: time.Now(), off: n.off(), skew: time.Duration(n.skew.Load()).Abs()}
	parts := strings.Split(text, ".")
	var head struct {
		Kid string `json:"kid"`
	}
	var claims struct {
		Iat int64 `json:"iat"`
		Exp int64 `json:"exp"`
		RV  int   `json:"rv"`

		Degraded bool `json:"degraded"`
	}
	for i, into := range []any{&head, &claims} {
		data, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			w.fail(0, "an access token cannot be read: %v", err)
			return t
		}
	}
	t.kid, t.exp, t.rights = head.Kid, time.Unix(claims.Exp, 0), claims.RV
	if t.degraded = claims.Degraded; t.degraded {
		w.fromCopies.Add(1)
		read := time.Unix(claims.Iat, 0)
		if t.exp.After(read.Add(w.degraded)) {
			w.fail(1, "%s minted from a copy for %s beyond its read", n.name, t.exp.Sub(read))
		}
		if !n.steadySince(start) {
			w.note("%s minted from a copy while its clock was set", n.name)
			return t
		}
		// What the token knows is as old as the read. Whatever came later may be missing in it.
		if read = read.Add(-time.Duration(n.skew.Load())); read.Before(t.start) {
			t.start = read
		}
	}
	w.model.mu.Lock()
	defer w.model.mu.Unlock()
	w.model.tokens = append(w.model.tokens, t)
	w.checkMint(n, t)
	return t
}

// refresh trades the cookie for an access token, as the SDK does.
func (b *browser) refresh(ctx context.Context, n *node) *token {
	for attempt := range 2 {
		b.mu.Lock()
		jar, s := b.jar, b.session
		b.mu.Unlock()
		if jar == "" {
			return nil
		}
		start := time.Now()
		a, err := b.w.request(ctx, b.w.device(b.name), "POST", "http://"+n.name+"/v1/auth/refresh", b.cookie(jar), nil)
		b.take(a)
		switch {
		case err != nil || a.status != http.StatusOK && !a.terminal():
			return nil // not ended: the client tries again later
		case a.status == http.StatusOK:
			t := b.w.gave(n, s, a.body.AccessToken, start)
			b.mu.Lock()
			if b.session == s {
				b.token = t
			}
			b.mu.Unlock()
			return t
		}
		b.w.note("%s refresh at %s of %s: %s", b.name, n.name, short(s.sid), a.body.Code)
		b.w.checkEnd(s, a.body.Code)
		if b.w.planted == "a late refusal signs the new session out" {
			b.leave()
			return nil
		}
		b.mu.Lock()
		same := b.jar == jar
		b.mu.Unlock()
		if same || attempt == 1 {
			if same {
				b.leave()
			}
			return nil
		}
	}
	return nil
}

func (b *browser) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jar, b.out = "", true
}

// take does what an answer says about cookies.
func (b *browser) take(a *answer) {
	if a == nil {
		return
	}
	for _, c := range a.cookies {
		if c.Name == "__Host-counterfoil" && c.MaxAge < 0 {
			b.mu.Lock()
			b.jar = ""
			b.mu.Unlock()
		}
	}
}

// stranded checks that a browser without a cookie has none for a reason.
func (b *browser) stranded() {
	b.mu.Lock()
	jar, s := b.jar, b.session
	b.mu.Unlock()
	if jar != "" || s == nil {
		return
	}
	b.w.model.mu.Lock()
	defer b.w.model.mu.Unlock()
	if !b.w.model.mayHaveEnded(s, time.Now()) {
		b.w.fail(3, "%s was signed out though nobody ended its session %s", b.name, short(s.sid))
	}
}

// tabs refreshes in several tabs at once.
func (b *browser) tabs(ctx context.Context, dice *rand.Rand) {
	var tabs sync.WaitGroup
	for range 2 + dice.IntN(3) {
		n := pick(dice, b.w.nodes)
		tabs.Go(func() { b.refresh(ctx, n) })
	}
	tabs.Wait()
}

// again signs out and in while a refresh of the old session is under way.
func (b *browser) again(ctx context.Context, dice *rand.Rand, n *node) {
	other := pick(dice, b.w.nodes)
	delay := time.Duration(dice.Int64N(int64(1500 * time.Millisecond)))
	var late sync.WaitGroup
	slow := dice.IntN(2) == 0
	if slow {
		b.w.net.set(b.name, other.name, func(w *way) { w.latency = delay })
	}
	late.Go(func() { b.refresh(ctx, other) })
	_ = sleep(ctx, 5*time.Millisecond)
	b.signOut(ctx, n, "this")
	b.mu.Lock()
	gone := b.jar == ""
	b.mu.Unlock()
	if gone {
		b.signIn(ctx, dice, n)
	}
	late.Wait()
	if slow {
		b.w.net.set(b.name, other.name, func(w *way) { w.latency = usualLatency })
	}
}

func outcome(a *answer, err error) string {
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", a.status, a.body.Code)
}

func short(s string) string { return s[:min(6, len(s))] }
