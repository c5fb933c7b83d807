package relay

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/revoked"
	"github.com/counterfoil/counterfoil/verify"
)

// get asks over the leaf's link.
func (c *chain) get(t *testing.T, url, key string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	transport := c.links[len(c.links)-1].transport()
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// Keys come from the relay's own copy, say how old they are through all levels,
// and are there without those that the feed has revoked; what this version does
// not know is passed on.
func TestKeysReachTheLeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, 2)
		res, body := c.get(t, "http://relay-1/.well-known/jwks.json", "")
		if !strings.Contains(body, `"cf_of_tomorrow":{"a":1}`) || strings.Count(body, `"kid"`) != 2 || !json.Valid([]byte(body)) || res.Header.Get("Content-Type") != "application/jwk-set+json" {
			t.Errorf("%v %s", res.Header, body)
		}
		if _, body = c.get(t, "http://relay-1/.well-known/oauth-authorization-server", ""); !strings.Contains(body, `"cf_of_tomorrow":[1]`) {
			t.Errorf("discovery: %s", body)
		}
		// A rotation: the leaf takes tokens of the new key at once.
		c.origin.change(func() { c.origin.kids, c.origin.version = []string{"k1", "k2", "k3"}, 2 })
		eventually(t, time.Second, "the leaf has the new keys", func() bool { return c.leaf.Stats().KeyVersion == 2 })
		if refuses(t, c.leaf, c.origin.mint(t, "k3", "s1")) {
			t.Error("a token of the new key is refused")
		}
		// An emergency: the key is gone everywhere, whoever still has it.
		stolen := c.origin.mint(t, "k1", "s2")
		c.origin.publish(revoked.Entry{Kind: revoked.Key, ID: "k1"})
		time.Sleep(50 * time.Millisecond)
		if _, err := c.leaf.Check(t.Context(), stolen); !errors.Is(err, verify.ErrTokenInvalid) {
			t.Errorf("a token of the revoked key: %v", err)
		}
		if _, body = c.get(t, "http://relay-1/.well-known/jwks.json", ""); strings.Contains(body, `"k1"`) || !strings.Contains(body, `"k2"`) {
			t.Errorf("the revoked key is published: %s", body)
		}
		// Never a lower version, and it never comes back.
		c.origin.change(func() { c.origin.version = 1 })
		time.Sleep(10 * time.Minute)
		if s := c.leaf.Stats(); s.KeyVersion != 2 {
			t.Errorf("version %d", s.KeyVersion)
		}
		if _, err := c.leaf.Check(t.Context(), c.origin.mint(t, "k1", "s2")); err == nil {
			t.Error("a token of the revoked key is taken")
		}
		c.links[0].cut(true)
		c.links[1].cut(true)
		if err := c.leaf.Close(); err != nil { // a day of beats takes a while
			t.Error(err)
		}
		time.Sleep(maxKeyAge / 2)
		if res, _ = c.get(t, "http://relay-1/.well-known/jwks.json", ""); res.StatusCode != 200 || len(res.Header.Get("Age")) < 5 {
			t.Errorf("after half a day: %d, Age %s", res.StatusCode, res.Header.Get("Age"))
		}
		time.Sleep(maxKeyAge)
		if res, _ = c.get(t, "http://relay-1/.well-known/jwks.json", ""); res.StatusCode != 503 {
			t.Errorf("keys that nobody vouches for any more are served: %d", res.StatusCode)
		}
	})
}

// A live check goes through to the authority each time, and is never answered by a relay.
func TestLiveGoesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, 3)
		live := c.leaf.Checker(verify.Live())
		token := c.origin.mint(t, "k1", "s1")
		for range 3 {
			if _, err := live(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
		if n := c.origin.asked.Load(); n != 3 {
			t.Errorf("the authority was asked %d times", n)
		}
		c.origin.change(func() { c.origin.ended["s1"] = true })
		if _, err := live(t.Context(), token); !errors.Is(err, verify.ErrTokenRevoked) {
			t.Errorf("%v", err)
		}
		c.links[0].cut(true)
		if _, err := live(t.Context(), c.origin.mint(t, "k1", "s2")); !errors.Is(err, verify.ErrUnavailable) {
			t.Errorf("without the authority: %v", err)
		}
		if s := c.relays[2].Stats(); s.Forwarded != 4 || s.Failed == 0 && s.Refused == 0 {
			t.Errorf("%+v", s)
		}
	})
}

// SEC-35: a reader's API key is the authority's business: a bad one gets
// nothing, one that was revoked is cut off within about a minute however many
// relays lie between, and a good one is good while nobody can be asked.
func TestSEC35ReadersKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, 3)
		bad, made := newKey(), newKey()
		c.origin.change(func() { c.origin.bad["Bearer "+bad] = true })
		before := c.origin.vouched.Load()
		for _, key := range []string{"", "cf_sk_guessed", made[:len(made)-1] + "!"} {
			if res, _ := c.get(t, "http://relay-2/v1/revocations/clock", key); res.StatusCode != 401 {
				t.Errorf("%q: %d", key, res.StatusCode)
			}
		}
		if n := c.origin.vouched.Load() - before; n != 0 {
			t.Errorf("the authority was asked %d times about keys that cannot be one", n)
		}
		for range 5 {
			if res, _ := c.get(t, "http://relay-2/v1/revocations", bad); res.StatusCode != 401 {
				t.Errorf("a bad key: %d", res.StatusCode)
			}
		}
		for range 5 {
			if res, _ := c.get(t, "http://relay-2/v1/revocations/clock", made); res.StatusCode != 200 {
				t.Errorf("a good key: %d", res.StatusCode)
			}
		}
		if n := c.origin.vouched.Load() - before; n != 1 { // about the good one; refusals are not counted there
			t.Errorf("the authority was asked %d times", n)
		}

		// Nobody can be asked: who was good is, who is new is not known.
		c.links[0].cut(true)
		time.Sleep(10 * time.Minute)
		if res, _ := c.get(t, "http://relay-2/v1/revocations/clock", made); res.StatusCode != 200 {
			t.Errorf("while nobody can be asked: %d", res.StatusCode)
		}
		if res, _ := c.get(t, "http://relay-2/v1/revocations/clock", newKey()); res.StatusCode != 503 {
			t.Errorf("a new key while nobody can be asked: %d", res.StatusCode)
		}
		if n := c.relays[2].Stats().Readers; n != 1 {
			t.Errorf("%d readers", n)
		}
		c.links[0].cut(false)
		eventually(t, time.Minute, "all is well", func() bool { return c.leaf.Stats().FeedAge < time.Second })

		// Revoked: the stream ends, and does not begin again.
		leaf := newKey()
		v := c.newLeaf(t, "http://relay-2", leaf)
		defer v.Close()
		if !v.Stats().Connected {
			t.Fatal("not connected")
		}
		c.origin.change(func() { c.origin.bad["Bearer "+leaf] = true })
		cut := time.Now()
		eventually(t, 5*time.Minute, "the reader is cut off", func() bool { return !v.Stats().Connected })
		if took := time.Since(cut); took > 100*time.Second {
			t.Errorf("the reader was cut off after %v", took)
		} else {
			t.Logf("a revoked key is cut off after %v behind three relays", took)
		}
		time.Sleep(time.Minute)
		if v.Stats().Connected {
			t.Error("it is back")
		}
		if !c.leaf.Stats().Connected {
			t.Error("the other one is gone too")
		}
	})
}

// With --cache, relays and readers come back while the authority is away: what
// is old is told as old, nothing that was revoked is taken.
func TestRestartWithoutTheAuthority(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, 2)
		c.caches[1] = filepath.Join(dir, "cache")
		c.restartRelay(t, 1)
		key := newKey()
		first := c.newLeaf(t, "http://relay-1", key)
		c.origin.publish(endSession("s1"))
		time.Sleep(20 * time.Second) // the files are written meanwhile
		good, ended := c.origin.mint(t, "k1", "s2"), c.origin.mint(t, "k1", "s1")
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		c.links[0].cut(true)
		c.links[1].cut(true)
		c.restartRelay(t, 1)
		s := c.relays[1].Stats()
		if !s.Ready || s.Connected || s.FeedAgeKnown || s.Position != "7.101" {
			t.Errorf("%+v", s)
		}
		v := c.newLeaf(t, "http://relay-1", key)
		defer v.Close()
		if !refuses(t, v, ended) || refuses(t, v, good) {
			t.Error("a leaf that starts meanwhile knows nothing")
		}
		if s := v.Stats(); !s.Connected || !s.FeedAgeKnown || s.FeedAge < 24*time.Hour {
			t.Errorf("nobody vouches for an age, and the leaf believes in %+v", s)
		}
		if _, err := v.Check(t.Context(), good, verify.MaxFeedAge(time.Minute)); !errors.Is(err, verify.ErrUnavailable) {
			t.Errorf("a strict route: %v", err)
		}
		if res, _ := c.get(t, "http://relay-1/v1/revocations/clock", newKey()); res.StatusCode != 503 {
			t.Errorf("a key that nobody vouches for: %d", res.StatusCode)
		}
		for _, name := range []string{"cache", "cache.readers"} {
			data, err := os.ReadFile(filepath.Join(dir, name))
			info, _ := os.Stat(filepath.Join(dir, name))
			if err != nil || info.Mode().Perm() != 0o600 || strings.Contains(string(data), "cf_sk_") {
				t.Errorf("%s: %v %v", name, err, info)
			}
		}
		c.origin.publish(endSession("s2"))
		c.links[0].cut(false)
		c.links[1].cut(false)
		eventually(t, time.Minute, "the leaf is up to date", func() bool { return refuses(t, v, good) && v.Stats().FeedAge < time.Second })
	})
}

// A relay passes on what it does not know: at once, and in its snapshots, until
// the authority's snapshot has it no more.
func TestUnknownEntriesArePassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, 2)
		const strange = `["z",{"of":["tomorrow",1.5]}]`
		entry := revoked.Entry{Kind: revoked.Foreign, ID: strange}
		c.origin.change(func() { c.origin.foreign = []revoked.Entry{entry} })
		c.origin.publish(entry)
		time.Sleep(100 * time.Millisecond)
		if s := c.leaf.Stats(); s.Skipped != 1 {
			t.Errorf("%d unknown entries at the leaf", s.Skipped)
		}
		sees := func() bool {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://relay-1/v1/revocations", nil)
			req.Header.Set("Authorization", "Bearer "+newKey())
			res, err := c.links[2].transport().RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			reader := feed.NewReader(res.Body)
			reader.KeepForeign = true
			for seen := false; ; {
				f, err := reader.Next()
				if err != nil {
					t.Fatal(err)
				}
				if seen = seen || slices.Contains(f.Foreign, entry); f.Kind == feed.Heartbeat {
					return seen
				}
			}
		}
		if !sees() {
			t.Error("it is not in a snapshot")
		}
		time.Sleep(5 * time.Minute)
		if !sees() {
			t.Error("it is not in a snapshot of later, while the authority's have it")
		}
		c.origin.change(func() { c.origin.foreign = nil })
		time.Sleep(10 * time.Minute)
		if sees() {
			t.Error("it never leaves")
		}
	})
}

func TestStatusPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, 1)
		for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/v1/sessions": 404, "/": 404} {
			if res, body := c.get(t, "http://relay-0"+path, ""); res.StatusCode != want {
				t.Errorf("%s: %d %s", path, res.StatusCode, body)
			}
		}
		text := string(c.relays[0].metrics())
		for _, line := range []string{"counterfoil_relay_level 1\n", "counterfoil_feed_readers 1\n", "counterfoil_feed_position 100\n", "counterfoil_key_version 1\n", "counterfoil_relay_ready 1\n"} {
			if !strings.Contains(text, line) {
				t.Errorf("no %q in\n%s", line, text)
			}
		}
		c.net.host("nobody", nil)
		alone, err := New(t.Context(), Config{Issuer: testIssuer, Authorities: []string{"http://nobody"}, APIKey: newKey(), Transport: c.links[1].transport(), Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		defer alone.Close()
		c.net.host("alone", alone)
		for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/.well-known/jwks.json": 503, "/v1/revocations": 503} {
			if res, body := c.get(t, "http://alone"+path, newKey()); res.StatusCode != want {
				t.Errorf("%s without an authority: %d %s", path, res.StatusCode, body)
			}
		}
	})
}

func TestConfig(t *testing.T) {
	for _, tc := range []struct {
		cfg   Config
		field string
	}{
		{Config{Issuer: testIssuer}, "APIKey"},
		{Config{Issuer: testIssuer, APIKey: "k", Authorities: []string{"ftp://x"}}, "Authorities"},
		{Config{Issuer: testIssuer, APIKey: "k", Authorities: []string{"https://u:p@x"}}, "Authorities"},
		{Config{APIKey: "k", Authorities: []string{"https://x"}}, "Issuer"},
		{Config{Issuer: testIssuer, APIKey: "k k"}, "APIKey"},
		{Config{Issuer: testIssuer, APIKey: "k", Cache: "/nowhere/at/all"}, "Cache"},
	} {
		var e *ConfigError
		if _, err := New(t.Context(), tc.cfg); !errors.As(err, &e) || e.Field != tc.field {
			t.Errorf("%v: %v", tc.cfg, err)
		}
	}
	if text := (Config{APIKey: "hush"}).String(); strings.Contains(text, "hush") {
		t.Error(text)
	}
}
