//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

// Verifiers is a process that holds many verifiers, each with connections of
// its own, as if each were a service.
type Verifiers struct {
	verifiers []*verify.Verifier
	claims    []*verify.Claims // of one good token, at each
	ends      []uint64         // streams that had ended at Mark
	watching  sync.WaitGroup
	times     [][]int64
	stop      context.CancelFunc
}

// Following says what to follow, and how many shall.
type Following struct {
	Address     string // host:port
	Path        string // of the stream, for bare readers
	APIKey      string
	Certificate []byte // PEM; empty without TLS
	Token       string // a good one
	N           int
}

const (
	// patience bounds everything that is waited for.
	patience = 30 * time.Second
	// atOnce is how many verifiers are started at a time.
	atOnce = 32
)

func (f *Following) tlsConfig() (*tls.Config, error) {
	if len(f.Certificate) == 0 {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(f.Certificate) {
		return nil, errors.New("the certificate cannot be read")
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, nil
}

// Start starts the verifiers and returns when all of them follow.
func (v *Verifiers) Start(f Following, _ *None) error {
	config, err := f.tlsConfig()
	if err != nil {
		return err
	}
	// A thousand services would not share one collector of garbage.
	debug.SetGCPercent(400)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	v.verifiers, v.claims = make([]*verify.Verifier, f.N), make([]*verify.Claims, f.N)
	errs, slots := make([]error, f.N), make(chan struct{}, atOnce)
	var started sync.WaitGroup
	for i := range f.N {
		started.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			v.verifiers[i], v.claims[i], errs[i] = newVerifier(ctx, &f, config)
		})
	}
	started.Wait()
	return errors.Join(errs...)
}

func newVerifier(ctx context.Context, f *Following, config *tls.Config) (*verify.Verifier, *verify.Claims, error) {
	scheme := "http://"
	if config != nil {
		scheme = "https://"
	}
	v, err := verify.New(ctx, verify.Config{
		Issuer: issuer, Audience: audience, Authority: scheme + f.Address, APIKey: f.APIKey, CacheTokens: 16,
		Logger: slog.New(slog.DiscardHandler),
		// What keys were fetched over is closed soon, so that the feed's
		// connection is the only one that counts.
		HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: config, IdleConnTimeout: time.Second}},
	})
	if err != nil {
		return nil, nil, err
	}
	if err := v.Wait(ctx); err != nil {
		return nil, nil, fmt.Errorf("a verifier does not become ready: %w", err)
	}
	claims, err := v.Check(ctx, f.Token)
	return v, claims, err
}

// Watch has every verifier watch sessions, one after the other in the order in
// which they will be revoked. The moment at which a verifier refuses a session
// is the one at which its verify.Watch ends.
func (v *Verifiers) Watch(sids []string, _ *None) error {
	ctx, stop := context.WithCancel(context.Background())
	v.stop = stop
	v.times = make([][]int64, len(v.verifiers))
	for i := range v.verifiers {
		v.watching.Go(func() {
			for _, sid := range sids {
				at, ok := watch(ctx, v.claims[i], sid)
				if !ok {
					return
				}
				v.times[i] = append(v.times[i], at)
			}
		})
	}
	return nil
}

// watch returns when the verifier of the claims refuses the session.
func watch(ctx context.Context, claims *verify.Claims, sid string) (at int64, ok bool) {
	// Claims of another session by the same verifier: a thousand verifiers
	// need not check a thousand signatures each to be asked about them.
	other := *claims
	other.SessionID = sid
	watched, stop := verify.Watch(verify.NewContext(ctx, &other))
	defer stop()
	<-watched.Done()
	at = mono()
	return at, errors.Is(context.Cause(watched), verify.ErrTokenRevoked)
}

// Watched waits for all that is watched, and returns when each verifier came
// to refuse each session.
func (v *Verifiers) Watched(_ None, times *[][]int64) error {
	done := make(chan struct{})
	go func() {
		v.watching.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-time.After(patience):
		err = errors.New("a revocation did not reach every verifier")
	}
	v.stop()
	<-done
	*times = v.times
	return err
}

// Checking is tokens and what is right to say of them.
type Checking struct{ Good, Revoked []string }

// Check has every verifier check tokens, and counts wrong answers.
func (v *Verifiers) Check(c Checking, wrong *int) error {
	ctx := context.Background()
	for _, one := range v.verifiers {
		for _, token := range c.Good {
			if _, err := one.Check(ctx, token); err != nil {
				*wrong++
			}
		}
		for _, token := range c.Revoked {
			if _, err := one.Check(ctx, token); !errors.Is(err, verify.ErrTokenRevoked) {
				*wrong++
			}
		}
	}
	return nil
}

// Ages looks at how old each verifier says its feed is, over and over.
func (v *Verifiers) Ages(duration time.Duration, ages *[]int64) error {
	const every, part = 10 * time.Millisecond, 16
	for n, end := 0, time.Now().Add(duration); time.Now().Before(end); n++ {
		for i := n % part; i < len(v.verifiers); i += part {
			s := v.verifiers[i].Stats()
			if !s.FeedAgeKnown {
				return errors.New("a verifier does not know the age of its feed")
			}
			*ages = append(*ages, int64(s.FeedAge))
		}
		time.Sleep(every)
	}
	return nil
}

// Older waits until each verifier says that its feed is older than age, and
// returns when each did.
func (v *Verifiers) Older(age time.Duration, times *[]int64) error {
	return v.each(times, func(i int) bool {
		s := v.verifiers[i].Stats()
		return !s.FeedAgeKnown || s.FeedAge > age
	})
}

// Mark takes note of the streams that have ended so far.
func (v *Verifiers) Mark(None, *None) error {
	v.ends = v.ends[:0]
	for _, one := range v.verifiers {
		v.ends = append(v.ends, one.Stats().Reconnects)
	}
	return nil
}

// Gone returns when each verifier's stream has ended since Mark.
func (v *Verifiers) Gone(_ None, times *[]int64) error {
	return v.each(times, func(i int) bool { return v.verifiers[i].Stats().Reconnects > v.ends[i] })
}

// Back returns when each verifier's stream has ended since Mark and another beats.
func (v *Verifiers) Back(_ None, times *[]int64) error {
	return v.each(times, func(i int) bool {
		s := v.verifiers[i].Stats()
		return s.Connected && s.Reconnects > v.ends[i]
	})
}

// each asks about every verifier each few milliseconds, and returns when it was true of which.
func (v *Verifiers) each(times *[]int64, is func(i int) bool) error {
	left := make([]int, len(v.verifiers))
	for i := range left {
		left[i] = i
	}
	*times = make([]int64, len(left))
	for end := time.Now().Add(patience); len(left) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("waited for %d verifiers in vain", len(left))
		}
		left = slices.DeleteFunc(left, func(i int) bool {
			ok := is(i)
			if ok {
				(*times)[i] = mono()
			}
			return ok
		})
	}
	return nil
}

// Close ends the verifiers.
func (v *Verifiers) Close(None, *None) error {
	errs := make([]error, len(v.verifiers))
	var ended sync.WaitGroup
	for i, one := range v.verifiers {
		ended.Go(func() { errs[i] = one.Close() })
	}
	ended.Wait()
	return errors.Join(errs...)
}
