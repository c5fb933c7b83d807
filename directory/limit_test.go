package directory

import (
	"testing"
	"time"
)

func TestLimit(t *testing.T) {
	l := Limit{Free: 3, Slowest: time.Minute}
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	var c Counter
	for i, want := range []time.Duration{0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60} {
		l.add(&c, start)
		got := time.Duration(0)
		if !c.NotBefore.IsZero() {
			got = c.NotBefore.Sub(start)
		}
		if got != want*time.Second {
			t.Errorf("failure %d: waits %s, want %ds", i+1, got, want)
		}
	}
	if l.most() != 10 || l.failures(&c, start) != 10 {
		t.Errorf("counts to %d, at most %d", l.failures(&c, start), l.most())
	}
	if !c.NotBefore.Before(c.ExpiresAt) {
		t.Error("a counter is forgotten before its wait is over")
	}
	for minutes, want := range []int{10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0} {
		if got := l.failures(&c, start.Add(time.Duration(minutes)*time.Minute)); got != want {
			t.Errorf("after %d minutes %d failures are left, want %d", minutes, got, want)
		}
	}

	// Taking back is exact, and leaves a wait that others brought about.
	now := start.Add(5*time.Minute + 20*time.Second)
	before := c
	before.NotBefore = time.Time{}
	l.add(&c, now)
	mine := c.NotBefore
	after := c
	l.takeBack(&after, 1, mine, now)
	if !after.ExpiresAt.Equal(before.ExpiresAt) || !after.NotBefore.IsZero() {
		t.Errorf("taken back: %+v, want %+v", after, before)
	}
	l.takeBack(&c, 1, mine.Add(-time.Second), now)
	if !c.NotBefore.Equal(mine) {
		t.Error("the wait of another attempt was taken back")
	}
	l.takeBack(&c, 100, mine, now)
	if l.failures(&c, now) != 0 || c.ExpiresAt.After(now) {
		t.Errorf("left after taking all back: %+v", c)
	}
}

// SEC-89: IPv6 counts by /64.
func TestSEC89Networks(t *testing.T) {
	for _, c := range []struct{ ip, host, wider string }{
		{"192.0.2.77", "192.0.2.77/32", "192.0.2.0/24"},
		{"::ffff:192.0.2.77", "192.0.2.77/32", "192.0.2.0/24"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "2001:db8:1::/48"},
		{"fe80::1%eth0", "fe80::/64", "fe80::/48"},
		{"", "", ""}, {"@", "", ""}, {"192.0.2.77:80", "", ""},
	} {
		if got := networkOf(c.ip); got != (network{c.host, c.wider}) {
			t.Errorf("%q: %+v", c.ip, got)
		}
	}
	if throttleKey("pair", "a", "bc") == throttleKey("pair", "ab", "c") {
		t.Error("two keys are one")
	}
	if n := len(throttleKey("account", "x")); n > 40 {
		t.Errorf("a key has %d characters", n)
	}
}
