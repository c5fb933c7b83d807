package pages

import (
	"strings"
	"testing"
	"time"
)

func TestAgents(t *testing.T) {
	for _, c := range []struct{ text, name, kind string }{
		{"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:141.0) Gecko/20100101 Firefox/141.0", "Firefox on Windows", "computer"},
		{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15", "Safari on macOS", "computer"},
		{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36 Edg/138.0.0.0", "Edge on Windows", "computer"},
		{"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36", "Chrome on ChromeOS", "computer"},
		{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1", "Safari on iPhone", "phone"},
		{"Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1", "Safari on iPad", "tablet"},
		{"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Mobile Safari/537.36", "Chrome on Android", "phone"},
		{"Mozilla/5.0 (Linux; Android 14; SM-X910) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36", "Chrome on Android", "tablet"},
		{"curl/8.9.1", "curl", "program"},
		{"", "An unknown device", "program"},
	} {
		if got := agentOf(c.text); got.Name != c.name || got.Kind != c.kind {
			t.Errorf("%s is %s (%s), want %s (%s)", c.text, got.Name, got.Kind, c.name, c.kind)
		}
	}
	if name := agentOf(strings.Repeat("A", 256)).Name; len([]rune(name)) > maxAgentWord+1 {
		t.Errorf("a name of %d characters", len([]rune(name)))
	}
}

func TestTimesInWords(t *testing.T) {
	now := time.Date(2026, 11, 22, 14, 5, 9, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		-time.Minute: "just now", 4 * time.Second: "just now", 12 * time.Second: "12 s ago", 59*time.Second + 999*time.Millisecond: "59 s ago",
		time.Minute: "1 min ago", 59 * time.Minute: "59 min ago", 90 * time.Minute: "1 h ago", 30 * time.Hour: "yesterday", 3 * 24 * time.Hour: "3 days ago",
		30 * 24 * time.Hour: "on 23 October 2026",
	} {
		if got := at(now.Add(-d), now); got.Ago != want {
			t.Errorf("%s before is %q, want %q", d, got.Ago, want)
		}
	}
	if got := at(now, now); got.Exact != "22 November 2026, 14:05:09 UTC" || got.ISO != "2026-11-22T14:05:09Z" {
		t.Errorf("%+v", got)
	}
	for d, want := range map[time.Duration]string{
		30 * 24 * time.Hour: "30 days", 24 * time.Hour: "1 day", 36 * time.Hour: "36 hours", time.Hour: "1 hour", 15 * time.Minute: "15 minutes", time.Second: "a moment",
	} {
		if got := lasting(d); got != want {
			t.Errorf("%s lasts %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "1 second", 1500 * time.Millisecond: "2 seconds", 90 * time.Second: "90 seconds", 91 * time.Second: "2 minutes", 15 * time.Minute: "15 minutes",
	} {
		if got := inWords(d); got != want {
			t.Errorf("wait %s: %q, want %q", d, got, want)
		}
	}
	for want, methods := range map[string][]string{
		"with a password": {"pwd"}, "with a passkey": {"pop", "user", "mfa"}, "with a password and a one-time code": {"pwd", "otp"}, "in another way": {"kba"},
		"with another account": {"fed"},
	} {
		if got := how(methods); got != want {
			t.Errorf("%q: %q, want %q", methods, got, want)
		}
	}
}
