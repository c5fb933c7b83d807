package relay

import (
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

// A thousand readers lose their relay at once, and all come back to the next,
// over real sockets. In the end nothing of it all is left running.
func TestAThousandReadersComeBack(t *testing.T) {
	n := 1000
	if testing.Short() || raceEnabled {
		n = 100
	}
	before := runtime.NumGoroutine()
	o := newOrigin(t)
	upstream := listen(t, "127.0.0.1:0", o)
	start := func(address string) (*Relay, *served) {
		r, err := New(t.Context(), Config{Issuer: testIssuer, Authorities: []string{"http://" + upstream.address}, APIKey: newKey(), Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		return r, listen(t, address, r)
	}
	r, s := start("127.0.0.1:0")
	verifiers := make([]*verify.Verifier, n)
	var starting sync.WaitGroup
	slots := make(chan struct{}, 32)
	transport := &http.Transport{DisableKeepAlives: true}
	for i := range verifiers {
		starting.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			v, err := verify.New(t.Context(), verify.Config{Issuer: testIssuer, Audience: testAudience, Authority: "http://" + s.address,
				APIKey: newKey(), CacheTokens: 16, HTTPClient: &http.Client{Transport: transport}, Logger: quiet})
			if err != nil {
				t.Error(err)
				return
			}
			verifiers[i] = v
		})
	}
	starting.Wait()
	if t.Failed() {
		return
	}
	all := func(what string, is func(*verify.Verifier) bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			missing := 0
			for _, v := range verifiers {
				if !is(v) {
					missing++
				}
			}
			if missing == 0 {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: not so at %d of %d", what, missing, n)
			}
		}
	}
	connected := func(v *verify.Verifier) bool { return v.Stats().Connected }
	all("connected", connected)
	token := o.mint(t, "k1", "s1")
	s.close()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	all("gone", func(v *verify.Verifier) bool { return !v.Stats().Connected })
	o.publish(endSession("s1"))
	r, s = start(s.address)
	began := time.Now()
	all("back", connected)
	t.Logf("%d readers with a key each are back after %v", n, time.Since(began).Round(time.Millisecond))
	all("refused", func(v *verify.Verifier) bool { return refuses(t, v, token) })

	var closing sync.WaitGroup
	for _, v := range verifiers {
		closing.Go(func() { _ = v.Close() })
	}
	closing.Wait()
	s.close()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	upstream.close()
	o.present().Close()
	for end := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before+2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			buffer := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buffer[:runtime.Stack(buffer, true)])
		}
	}
}

// served is a handler on a port.
type served struct {
	address string
	server  *http.Server
}

func listen(t *testing.T, address string, h http.Handler) *served {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &served{listener.Addr().String(), &http.Server{Handler: h}}
	go func() { _ = s.server.Serve(listener) }()
	return s
}

func (s *served) close() { _ = s.server.Close() }
