package directory_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
)

func limited(err error) bool {
	var l *counterfoil.RateLimitedError
	return errors.As(err, &l) && l.RetryAfter > 0
}

// guess reports whether the guess was looked at: compared, at the price of a hash.
func (e *env) guess(email, ip string) bool {
	e.t.Helper()
	before := e.Hashes()
	err := e.try(email, "wrong "+goodPassword, ip)
	hashed := e.Hashes() - before
	switch {
	case limited(err) && hashed == 0:
		return false
	case errors.Is(err, counterfoil.ErrInvalidCredentials) && hashed == 1:
		return true
	}
	e.t.Fatalf("guess at %s from %s: %v with %d hashes", email, ip, err, hashed)
	return false
}

// SEC-88: a botnet that never stops gets few guesses at one account, and
// keeps the owner out at no moment of the day.
func TestSEC88LockOut(t *testing.T) {
	e := setup(t, nil)
	e.user("ada@example.com")
	const home = "203.0.113.5"
	e.grant("ada@example.com", goodPassword, home)
	guesses := 0
	for second := 0; second < 24*3600; second += 5 {
		if e.guess("ada@example.com", inTurn(second)) {
			guesses++
		}
		if second%3600 == 0 {
			e.grant("ada@example.com", goodPassword, home)
		}
		e.clock.advance(5 * time.Second)
	}
	if guesses < 20 || guesses > 100 {
		t.Errorf("%d guesses in a day", guesses)
	}
	t.Logf("%d guesses in a day", guesses)

	// The owner is free to mistype at home, and has to wait elsewhere.
	for range 4 {
		if err := e.try("ada@example.com", otherPassword, home); !errors.Is(err, counterfoil.ErrInvalidCredentials) {
			t.Fatalf("at home: %v", err)
		}
	}
	e.grant("ada@example.com", goodPassword, home)
	for e.guess("ada@example.com", inTurn(1)) {
	}
	if err := e.try("ada@example.com", goodPassword, "198.51.100.7"); !limited(err) {
		t.Errorf("elsewhere, in the middle of the attack: %v", err)
	}

	// A reset link opens the place where it is used.
	u, err := e.ByEmail(t.Context(), "ada@example.com")
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := e.NewPasswordReset(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.ResetPassword(t.Context(), token.Reveal(), otherPassword, from("198.51.100.7")); err != nil {
		t.Fatal(err)
	}
	e.grant("ada@example.com", otherPassword, "198.51.100.7")
}

// SEC-88: whoever hammers an account from the user's own address gets five
// guesses, then ever fewer.
func TestSEC88OneNetwork(t *testing.T) {
	e := setup(t, nil)
	e.user("ada@example.com")
	e.grant("ada@example.com", goodPassword, "2001:db8:7:7::1")
	guesses := 0
	for i := range 24 * 360 {
		// SEC-89: other addresses of one /64 are one network.
		if e.guess("ada@example.com", fmt.Sprintf("2001:db8:7:7::%x", i)) {
			guesses++
		}
		e.clock.advance(10 * time.Second)
	}
	if guesses > 5+11+4*24 {
		t.Errorf("%d guesses in a day", guesses)
	}
	t.Logf("%d guesses in a day", guesses)
}

// SEC-88: credential stuffing and password spraying, one guess an account.
func TestSEC88Spraying(t *testing.T) {
	for _, c := range []struct {
		name string
		ip   func(i int) string
		most int // in an hour
	}{
		{"one address", func(int) string { return "192.0.2.1" }, 100 + 7 + 60},
		{"one range", func(i int) string { return fmt.Sprintf("2001:db8:5:%x::1", i&0xffff) }, 500 + 5 + 360},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := setup(t, nil)
			e.user("grace@example.com")
			e.grant("grace@example.com", goodPassword, c.ip(1))
			guesses := 0
			for i := range 3600 {
				if e.guess(fmt.Sprintf("user%d@example.com", i), c.ip(i)) {
					guesses++
				}
				e.clock.advance(time.Second)
			}
			if guesses > c.most || guesses < c.most/2 {
				t.Errorf("%d guesses in an hour, want at most %d", guesses, c.most)
			}
			t.Logf("%d guesses in an hour", guesses)
			// Who signed in there before still can; others elsewhere can.
			e.grant("grace@example.com", goodPassword, c.ip(1))
			e.user("linus@example.com")
			e.grant("linus@example.com", goodPassword, "198.51.100.1")
		})
	}
}

// An office where people sign in for the first time, and mistype, is no attack.
func TestOffice(t *testing.T) {
	e := setup(t, nil)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 600 {
		email := fmt.Sprintf("user%d@example.com", i)
		e.user(email)
		for range random.IntN(3) {
			if !e.guess(email, "192.0.2.1") {
				t.Fatalf("user %d has to wait after a mistake or two", i)
			}
		}
		e.grant(email, goodPassword, "192.0.2.1")
		e.clock.advance(time.Second)
	}
}

// SEC-91: nothing in the throttling tells whether an account exists.
func TestSEC91ThrottledAlike(t *testing.T) {
	answers := func(prepare func(*env)) (got []string) {
		e := setup(t, nil)
		prepare(e)
		for i := range 200 {
			err := e.try("ada@example.com", otherPassword, inTurn(i/8))
			got = append(got, err.Error())
			e.clock.advance(time.Duration(i%7) * time.Second)
		}
		return got
	}
	unknown := answers(func(*env) {})
	known := answers(func(e *env) {
		e.user("ada@example.com")
		e.grant("ada@example.com", goodPassword, "203.0.113.5")
	})
	disabled := answers(func(e *env) {
		yes := true
		if _, err := e.Update(t.Context(), e.user("ada@example.com").ID, directory.Change{Disabled: &yes}); err != nil {
			t.Fatal(err)
		}
	})
	for i := range unknown {
		if unknown[i] != known[i] || unknown[i] != disabled[i] {
			t.Fatalf("attempt %d: %q, %q, %q", i, unknown[i], known[i], disabled[i])
		}
	}
}

// SEC-90: two nodes, one budget, also for a burst of parallel guesses.
func TestSEC90Burst(t *testing.T) {
	e := setup(t, nil)
	e.user("ada@example.com")
	second := e.node(nil)
	second.HashFast()
	nodes := []*directory.Directory{e.Directory, second}
	var guesses, refused atomic.Int64
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			_, err := nodes[i%2].SignIn(t.Context(), directory.SignIn{
				Email: "ada@example.com", Password: otherPassword, Request: from("192.0.2.1"),
			})
			switch {
			case errors.Is(err, counterfoil.ErrInvalidCredentials):
				guesses.Add(1)
			case limited(err):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	// The clock stands still: five free ones and the first that has to wait after.
	if guesses.Load() != 6 || refused.Load() != 194 {
		t.Errorf("%d guesses, %d refused", guesses.Load(), refused.Load())
	}
}

// An honest burst, as of a test suite, is served and leaves no trace.
func TestHonestBurst(t *testing.T) {
	e := setup(t, nil)
	e.user("ada@example.com")
	for range 5 {
		var all sync.WaitGroup
		for range 30 {
			all.Go(func() {
				if err := e.try("ada@example.com", goodPassword, "192.0.2.1"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	for i := range 5 {
		if !e.guess("ada@example.com", "192.0.2.1") {
			t.Fatalf("successes left %d failures", 5-i)
		}
	}
}

// Refreshing has no share in the budget of sign-ins.
func TestRefreshIsNotThrottled(t *testing.T) {
	e := setup(t, nil)
	e.user("ada@example.com")
	g := e.grant("ada@example.com", goodPassword, "192.0.2.1")
	for e.guess("ada@example.com", "192.0.2.1") {
	}
	for range 50 {
		if _, err := e.auth.Refresh(t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSignUpThrottled(t *testing.T) {
	e := setup(t, nil)
	for i := range 50 {
		_, _, err := e.SignUp(t.Context(), directory.SignIn{
			Email: fmt.Sprintf("user%d@example.com", i/2), Password: goodPassword, Request: from("192.0.2.1"),
		})
		if want := i%2 == 1; errors.Is(err, counterfoil.ErrConflict) != want || !want && err != nil {
			t.Fatalf("sign-up %d: %v", i, err)
		}
	}
	up := func(email, ip string) error {
		_, _, err := e.SignUp(t.Context(), directory.SignIn{Email: email, Password: goodPassword, Request: from(ip)})
		return err
	}
	if err := up("a@example.com", "192.0.2.1"); err != nil {
		t.Error(err)
	}
	hashes := e.Hashes()
	if err := up("b@example.com", "192.0.2.1"); !limited(err) || e.Hashes() != hashes {
		t.Errorf("got %v", err)
	}
	if err := up("b@example.com", "192.0.2.2"); err != nil {
		t.Error(err)
	}
	// Signing in there goes on.
	e.grant("a@example.com", goodPassword, "192.0.2.1")
}

// Who stole a session guesses the password no faster, and keeps nobody else out.
func TestSessionThrottled(t *testing.T) {
	e := setup(t, nil)
	e.user("ada@example.com")
	stolen := e.grant("ada@example.com", goodPassword, "192.0.2.1").SessionToken.Reveal()
	own := e.grant("ada@example.com", goodPassword, "192.0.2.1").SessionToken.Reveal()
	guesses := 0
	for range 1000 {
		_, err := e.StepUp(t.Context(), stolen, otherPassword, nil)
		if !limited(err) {
			guesses++
		}
		if _, err := e.ChangePassword(t.Context(), stolen, otherPassword, otherPassword, nil); !limited(err) {
			guesses++
		}
		e.clock.advance(time.Second)
	}
	if guesses > 5+11+1 {
		t.Errorf("%d guesses", guesses)
	}
	if _, err := e.StepUp(t.Context(), own, goodPassword, nil); err != nil {
		t.Error(err)
	}
	e.grant("ada@example.com", goodPassword, "192.0.2.1")
}
