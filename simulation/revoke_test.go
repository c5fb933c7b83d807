package simulation

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"
)

// begun notes the start of a call that ends or changes something; the model's
// mu is held.
func (w *world) begun(n *node) call {
	_, run := n.process()
	return call{start: time.Now(), at: n, run: run}
}

// settle notes how it ended.
func (w *world) settle(c *call, ok bool) {
	w.model.mu.Lock()
	defer w.model.mu.Unlock()
	now := time.Now()
	if ok && !c.start.Before(w.restoredAt) {
		c.ack, c.over = now, now
		return
	}
	// What was not acknowledged may be done yet.
	c.over = now.Add(10 * time.Second)
}

func (b *browser) signOut(ctx context.Context, n *node, which string) {
	b.mu.Lock()
	jar, s := b.jar, b.session
	b.mu.Unlock()
	if jar == "" {
		return
	}
	w := b.w
	w.model.mu.Lock()
	end, all := &call{}, &change{}
	switch which {
	case "this":
		*end = w.begun(n)
		s.ends = append(s.ends, end)
	default:
		*all = change{call: w.begun(n), signOut: true}
		if which == "others" {
			all.except = s.sid
		}
		s.user.changes = append(s.user.changes, all)
		end = &all.call
	}
	w.model.mu.Unlock()
	a, err := w.request(ctx, w.device(b.name), "POST", "http://"+n.name+"/v1/auth/sign-out", b.cookie(jar), map[string]string{"which": which})
	ok := err == nil && a.status == http.StatusNoContent
	w.settle(end, ok)
	w.note("%s sign-out %s at %s of %s: %s", b.name, which, n.name, short(s.sid), outcome(a, err))
	if err == nil && a.terminal() {
		w.checkEnd(s, a.body.Code)
	}
	if ok && which != "others" {
		b.mu.Lock()
		if b.jar == jar {
			b.jar, b.out = "", true
		}
		b.mu.Unlock()
	}
	if ok {
		w.probe(ctx, s.user, end)
	}
}

// changePassword commits the password first, and then ends the other sessions.
func (w *world) changePassword(ctx context.Context, b *browser, n *node) {
	b.mu.Lock()
	s := b.session
	b.mu.Unlock()
	if s == nil {
		return
	}
	w.model.mu.Lock()
	b.user.pw++
	c := &change{call: w.begun(n), signOut: true, except: s.sid, pw: b.user.pw}
	b.user.changes = append(b.user.changes, c)
	w.model.mu.Unlock()
	a, err := w.request(ctx, w.backend, "DELETE", "http://"+n.name+"/v1/users/"+b.user.name+"/sessions?reason=password_changed&except="+s.sid, w.key(), nil)
	ok := err == nil && a.status == http.StatusNoContent
	w.settle(&c.call, ok)
	w.note("%s password of %s at %s: %s", b.name, b.user.name, n.name, outcome(a, err))
	if ok {
		w.probe(ctx, b.user, &c.call)
	}
}

// changeRights commits the rights first, and then makes the tokens stale.
func (w *world) changeRights(ctx context.Context, u *user, n *node) {
	wrong := w.planted == "rights committed after the epoch"
	w.model.mu.Lock()
	if !wrong {
		u.rights++
	}
	// What others commit while the call is under way may come after its epoch.
	c := &change{call: w.begun(n), rights: u.rights}
	u.changes = append(u.changes, c)
	w.model.mu.Unlock()
	a, err := w.request(ctx, w.backend, "POST", "http://"+n.name+"/v1/users/"+u.name+"/rights-changed", w.key(), nil)
	ok := err == nil && a.status == http.StatusNoContent
	if wrong {
		_ = sleep(ctx, 300*time.Millisecond)
		w.model.mu.Lock()
		u.rights++
		c.rights = u.rights
		w.model.mu.Unlock()
	}
	w.settle(&c.call, ok)
	w.note("rights of %s at %s: %s", u.name, n.name, outcome(a, err))
	if ok {
		w.probe(ctx, u, &c.call)
	}
}

// endSession is an operator who ends any session.
func (w *world) endSession(ctx context.Context, dice *rand.Rand, n *node) {
	w.model.mu.Lock()
	if len(w.model.sessions) == 0 {
		w.model.mu.Unlock()
		return
	}
	recent := w.model.sessions[max(0, len(w.model.sessions)-6):]
	s := pick(dice, recent)
	end := new(call)
	*end = w.begun(n)
	s.ends = append(s.ends, end)
	w.model.mu.Unlock()
	a, err := w.request(ctx, w.backend, "DELETE", "http://"+n.name+"/v1/sessions/"+s.sid, w.key(), nil)
	ok := err == nil && a.status == http.StatusNoContent
	w.settle(end, ok)
	w.note("operator ends %s at %s: %s", short(s.sid), n.name, outcome(a, err))
	if ok {
		w.probe(ctx, s.user, end)
	}
}

// changeKeys is an operator who replaces the signing key, in an emergency or not.
func (w *world) changeKeys(ctx context.Context, dice *rand.Rand, n *node, emergency bool) {
	auth, _ := n.process()
	if auth == nil {
		return
	}
	if !emergency {
		w.note("keys rotate at %s: %v", n.name, auth.RotateKeys(ctx))
		return
	}
	kids := w.db.kids()
	if len(kids) == 0 {
		return // the database has just gone back
	}
	kid := pick(dice, kids)
	w.model.mu.Lock()
	if w.model.keys[kid] != nil {
		w.model.mu.Unlock()
		return
	}
	c := new(call)
	*c = w.begun(n)
	w.model.keys[kid] = c
	w.model.mu.Unlock()
	err := auth.RevokeKey(ctx, kid)
	w.settle(c, err == nil)
	w.note("key %s revoked at %s: %v", short(kid), n.name, err)
	if err == nil {
		w.probe(ctx, nil, c)
	}
}

// probe tries tokens that must be dead now: at once where the call was
// acknowledged, and soon after everywhere.
func (w *world) probe(ctx context.Context, u *user, c *call) {
	w.model.mu.Lock()
	var tokens []*token
	for i := len(w.model.tokens) - 1; i >= 0 && len(tokens) < 2; i-- {
		t := w.model.tokens[i]
		at, _ := w.model.refusedBy(t)
		if (u == nil || t.session.user == u) && !at.IsZero() && time.Now().Before(t.exp) {
			tokens = append(tokens, t)
		}
	}
	w.model.mu.Unlock()
	for _, t := range tokens {
		w.checkLocal(ctx, c, t)
	}
	if len(tokens) == 0 {
		return
	}
	for i, s := range w.services {
		t := tokens[i%len(tokens)]
		w.background.Go(func() {
			for j, d := range []time.Duration{30 * time.Millisecond, 200 * time.Millisecond} {
				if sleep(ctx, d) != nil {
					return
				}
				_ = w.decide(ctx, s, t, routes[(i+j)%2])
			}
		})
	}
}
