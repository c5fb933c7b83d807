//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/counterfoil/counterfoil/bench/internal/load"
	"github.com/counterfoil/counterfoil/bench/internal/stage"
)

// issuer is that of all tokens here, whatever address they are asked for at.
const (
	issuer   = "https://app.example"
	audience = "app" // the default of counterfoil serve
)

// pair is a certificate of 127.0.0.1 and its key.
type pair struct {
	certificate, key         []byte // PEM
	certificateFile, keyFile string
}

func newPair(dir string) (p pair, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return p, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return p, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return p, err
	}
	p.certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	p.key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	p.certificateFile, p.keyFile = filepath.Join(dir, "bench.crt"), filepath.Join(dir, "bench.key")
	return p, errors.Join(os.WriteFile(p.certificateFile, p.certificate, 0o600), os.WriteFile(p.keyFile, p.key, 0o600))
}

// node is a running "counterfoil serve", and the processes whose verifiers
// follow it.
type node struct {
	*stage.Counterfoil
	postgres *stage.Postgres
	database string
	options  stage.ServeOptions
	binary   string
	secure   bool // speaks TLS
	trusted  []byte
	holders  []*role // of verifiers
	readers  []*role // of bare readers
}

func (b *bench) serve(ctx context.Context, database string, secure bool) (*node, error) {
	n := &node{database: database, binary: b.binary, secure: secure, options: stage.ServeOptions{Issuer: issuer, Processors: b.serverUse}}
	if secure {
		n.trusted = b.pair.certificate
		n.options.Certificate, n.options.CertificateKey = b.pair.certificateFile, b.pair.keyFile
	}
	var err error
	if n.options.Address, err = stage.FreeAddress(); err != nil {
		return nil, err
	}
	if b.profile != "" {
		if n.options.Profile, err = stage.FreeAddress(); err != nil {
			return nil, err
		}
	}
	if n.Counterfoil, err = stage.Serve(ctx, b.binary, database, n.options); err != nil {
		return nil, err
	}
	n.options.APIKey = n.APIKey
	return n, nil
}

// restart ends the server by a signal and starts it again where it was.
func (n *node) restart(ctx context.Context, b *bench, signal unix.Signal) error {
	if err := unix.Kill(n.PID, signal); err != nil {
		return err
	}
	if err := n.Counterfoil.Stop(); err != nil {
		return err
	}
	again, err := stage.Serve(ctx, n.binary, n.database, n.options)
	if err != nil {
		return err
	}
	n.Counterfoil = again
	return nil
}

// close ends the verifiers, then the server.
func (n *node) close() error {
	var errs []error
	for _, p := range append(n.holders, n.readers...) {
		errs = append(errs, p.Stop())
	}
	return errors.Join(append(errs, n.Counterfoil.Stop())...)
}

func (n *node) following() Following {
	return Following{Address: n.Address, Path: "/v1/revocations", APIKey: n.APIKey, Certificate: n.trusted}
}

func (n *node) tls() *tls.Config {
	f := n.following()
	config, err := f.tlsConfig()
	if err != nil {
		panic(err) // the certificate was made here
	}
	return config
}

// sessions starts sessions, and returns their access tokens and ids.
func (n *node) sessions(ctx context.Context, count int) (tokens, sids []string, err error) {
	var requests [][]byte
	for i := range count {
		requests = append(requests, n.SignIn(fmt.Sprintf("user-%d", i)))
	}
	var mu sync.Mutex
	var broken error
	_, err = load.Run(ctx, load.Plan{
		Address: n.Address, TLS: n.tls(), Connections: 8, Duration: time.Minute, Next: load.Once(requests), Status: http.StatusCreated,
		Keep: func(body []byte) {
			var g stage.Grant
			err := json.Unmarshal(body, &g)
			mu.Lock()
			defer mu.Unlock()
			broken = errors.Join(broken, err)
			tokens, sids = append(tokens, g.AccessToken), append(sids, g.Session.SID)
		}})
	if err = errors.Join(err, broken); err == nil && len(sids) != count {
		err = fmt.Errorf("%d of %d sessions were started", len(sids), count)
	}
	return tokens, sids, err
}

// revokers is how many revocations may be under way at a time.
const revokers = 8

// revoke ends sessions at a pace, and returns when each was asked for and when
// it was answered.
func (n *node) revoke(ctx context.Context, sids []string, pace Pace) (sent, answered []int64, err error) {
	sent, answered = make([]int64, len(sids)), make([]int64, len(sids))
	next, errs := make(chan int), make([]error, revokers)
	var working sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range revokers {
		working.Go(func() {
			var conn net.Conn
			var answers *bufio.Reader
			defer func() {
				if conn != nil {
					_ = conn.Close() // nothing is left to be sent
				}
			}()
			for k := range next {
				if conn == nil && errs[i] == nil { // not before: a server does not wait for the first request for long
					if conn, errs[i] = load.Dial(ctx, n.Address, n.tls()); errs[i] == nil {
						answers = bufio.NewReader(conn)
					}
				}
				sent[k] = mono()
				if errs[i] == nil {
					errs[i] = ask(conn, answers, n.Revoke(sids[k]))
				}
				answered[k] = mono()
			}
		})
	}
	start := mono()
	for k := range sids {
		sleepUntil(start + int64(k)*int64(time.Second)/int64(pace.Rate))
		next <- k
	}
	close(next)
	working.Wait()
	return sent, answered, errors.Join(append(errs, ctx.Err())...)
}

// ask sends a request whose answer has no body.
func ask(conn net.Conn, answers *bufio.Reader, request []byte) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	for first := true; ; first = false {
		line, err := answers.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case first && !bytes.HasPrefix(line, []byte("HTTP/1.1 204")):
			return fmt.Errorf("answered %q", line)
		case len(line) <= len("\r\n"):
			return nil
		}
	}
}

// check asks each verifier about tokens.
func (n *node) check(c Checking) (wrong int, err error) {
	counts := make([]int, len(n.holders))
	err = all(n.holders, "Check", same(c), func(i int) any { return &counts[i] })
	for _, count := range counts {
		wrong += count
	}
	return wrong, err
}

// startProfile profiles the server during one measurement, if asked to.
func (n *node) startProfile(ctx context.Context, b *bench, rate int) <-chan error {
	done := make(chan error, 1)
	if b.profile == "" {
		done <- nil
		return done
	}
	name := filepath.Join(b.profile, fmt.Sprintf("%s-%d.pprof", mode(n.secure), rate))
	if n.postgres != nil {
		name = filepath.Join(b.profile, fmt.Sprintf("postgres-%d.pprof", rate))
	}
	if err := os.MkdirAll(b.profile, 0o755); err != nil {
		done <- err
		return done
	}
	seconds := max(1, int(b.window/time.Second))
	go func() { done <- stage.Profile(ctx, n.options.Profile, name, seconds) }()
	return done
}
