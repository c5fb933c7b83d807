package simulation

import (
	"context"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/verify"
)

// planted are bugs made on purpose. Each is found within so many seeds. Those
// that need rare faults begin where these come, to save time.
var planted = []struct {
	name  string
	seeds int
	first uint64
}{
	{"lost event", 10, 1},
	{"wrong order", 20, 1},
	{"cursor skips gaps", 20, 1},
	{"cursor ahead", 40, 1},
	{"rights committed after the epoch", 10, 1},
	{"epoch read after the password was checked", 40, 1},
	{"sign-in with the epoch of the insert", 40, 1},
	{"late insert into a cache", 40, 1},
	{"joined live check", 80, 19},
	{"iat of after a pause", 40, 1},
	{"the skew of the clocks is not looked at", 20, 3},
	{"cut-off node mints from a copy", 60, 14},
	{"key set goes backwards", 100, 24},
	{"a late refusal signs the new session out", 20, 1},
	{"a refusal clears the cookie", 20, 1},
	{"beats lie about the age", 30, 8},
	{"beats tell the age of the nearest node", 30, 1},
	{"snapshot without what is retained", 40, 1},
	{"advance without signed-out-below", 10, 1},
	{"the kept session is not kept", 10, 1},
	{"an outage is told as an end", 10, 1},
	{"acknowledged before it is written", 10, 1},
	{"restored with the old keys", 60, 6},
	{"restored in the old timeline", 60, 6},
}

// plantedFrames change what verifiers hear; false drops the frame.
var plantedFrames = map[string]func(*feed.Frame) bool{
	"snapshot without what is retained": func(f *feed.Frame) bool {
		if f.Kind == feed.Snapshot {
			f.Entries = nil
		}
		return true
	},
	"beats tell the age of the nearest node": func(f *feed.Frame) bool {
		f.Beat.AgeMS = 0
		return true
	},
}

// plantedVerifier is the verifier, or one with a bug around it.
func (w *world) plantedVerifier(v *verify.Verifier) checker {
	switch w.planted {
	case "late insert into a cache":
		return &lateCache{v: v, good: make(map[string]*verify.Claims)}
	case "joined live check":
		return &joined{v: v, flights: make(map[string]*flight)}
	}
	return v
}

// lateCache forgets all with each event, but remembers a token some time after
// it has looked.
type lateCache struct {
	v      *verify.Verifier
	mu     sync.Mutex
	good   map[string]*verify.Claims
	events uint64
}

func (c *lateCache) Check(ctx context.Context, token string, rules ...verify.Rule) (*verify.Claims, error) {
	if len(rules) > 0 {
		return c.v.Check(ctx, token, rules...)
	}
	c.mu.Lock()
	if events := c.v.Stats().Events; events != c.events {
		clear(c.good)
		c.events = events
	}
	claims := c.good[token]
	c.mu.Unlock()
	if claims != nil && time.Now().Before(claims.ExpiresAt) {
		return claims, nil
	}
	claims, err := c.v.Check(ctx, token)
	if err == nil {
		time.AfterFunc(100*time.Millisecond, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.good[token] = claims
		})
	}
	return claims, err
}

// joined lets live checks share one that was sent before they came.
type joined struct {
	v       *verify.Verifier
	mu      sync.Mutex
	flights map[string]*flight
}

type flight struct {
	done   chan struct{}
	claims *verify.Claims
	err    error
}

func (j *joined) Check(ctx context.Context, token string, rules ...verify.Rule) (*verify.Claims, error) {
	if len(rules) == 0 || &rules[0] != &routes[2].rules[0] {
		return j.v.Check(ctx, token, rules...)
	}
	j.mu.Lock()
	f := j.flights[token]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		j.flights[token] = f
		go func() {
			f.claims, f.err = j.v.Check(context.WithoutCancel(ctx), token, rules...)
			close(f.done)
			time.AfterFunc(200*time.Millisecond, func() {
				j.mu.Lock()
				defer j.mu.Unlock()
				delete(j.flights, token)
			})
		}()
	}
	j.mu.Unlock()
	<-f.done
	return f.claims, f.err
}

var versionMember = regexp.MustCompile(`"cf_version":\s*(\d+)`)

func version(jwks []byte) int64 {
	m := versionMember.FindSubmatch(jwks)
	if m == nil {
		return 0
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return n
}

func withVersion(jwks []byte, n int64) []byte {
	return versionMember.ReplaceAll(jwks, []byte(`"cf_version":`+strconv.FormatInt(n, 10)))
}
