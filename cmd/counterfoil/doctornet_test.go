package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// issued is a certificate of the test's own root.
type issued struct {
	cert, key string // files
	roots     *x509.CertPool
	pair      tls.Certificate
}

func issue(t *testing.T, host string, from, until time.Time) issued {
	t.Helper()
	sign := func(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	rootKey, leafKey := newKey(), newKey()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root of the test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-1000 * day), NotAfter: time.Now().Add(1000 * day), KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: from, NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature}
	if ip := net.ParseIP(host); ip != nil {
		leaf.IPAddresses = []net.IP{ip}
	} else {
		leaf.DNSNames = []string{host}
	}
	rootDER := sign(root, root, rootKey, rootKey)
	leafDER := sign(leaf, root, leafKey, rootKey)
	private, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	out := issued{cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"), roots: x509.NewCertPool()}
	write := func(file, kind string, der []byte) {
		var b bytes.Buffer
		if err := errors.Join(pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}), os.WriteFile(file, b.Bytes(), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write(out.cert, "CERTIFICATE", leafDER)
	write(out.key, "PRIVATE KEY", private)
	parsed, err := x509.ParseCertificate(rootDER)
	if err != nil {
		t.Fatal(err)
	}
	out.roots.AddCert(parsed)
	if out.pair, err = tls.LoadX509KeyPair(out.cert, out.key); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDoctorOnCertificates(t *testing.T) {
	now := time.Now()
	look := func(c issued, roots *x509.CertPool, issuer string) []finding {
		return diagnose(t, nil, roots, nil, "--tls-cert", c.cert, "--tls-key", c.key, "--issuer", issuer, "--database", "sqlite:"+filepath.Join(t.TempDir(), "x.db"))
	}
	const issuer = "https://auth.example.test"
	good := issue(t, "auth.example.test", now.Add(-day), now.Add(90*day))
	found := look(good, good.roots, issuer)
	for _, check := range []string{"key", "expiry", "names", "chain"} {
		expect(t, found, "certificate: "+check, statusOK)
	}
	expect(t, look(good, x509.NewCertPool(), issuer), "certificate: chain", statusWarn, "intermediate", "root of the test")
	expect(t, look(good, good.roots, "https://login.example.test"), "certificate: names", statusFail, "auth.example.test", "login.example.test")

	for _, test := range []struct {
		from, until time.Duration
		status      string
		words       string
	}{
		{-90 * day, -day, statusFail, "expired"},
		{day, 90 * day, statusFail, "from"},
		{-90 * day, 2 * day, statusFail, "expires in"},
		{-90 * day, 20 * day, statusWarn, "expires in"},
	} {
		c := issue(t, "auth.example.test", now.Add(test.from), now.Add(test.until))
		found := look(c, c.roots, issuer)
		expect(t, found, "certificate: expiry", test.status, test.words)
		expect(t, found, "certificate: chain", statusOK)
	}

	other := issue(t, "auth.example.test", now.Add(-day), now.Add(90*day))
	expect(t, look(issued{cert: good.cert, key: other.key}, good.roots, issuer), "certificate: files", statusFail, "does not match")
	if err := os.Chmod(good.key, 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, look(good, good.roots, issuer), "certificate: key file", statusWarn, "chmod")
}

func TestDoctorOnSettings(t *testing.T) {
	database := "sqlite:" + filepath.Join(t.TempDir(), "x.db")
	for _, test := range []struct {
		name          string
		args          []string
		check, status string
		words         string
	}{
		{"good", []string{"--issuer", "https://auth.example.com", "--trusted-proxies", "10.0.0.1"}, "settings: serve", statusOK, ""},
		{"lifetimes", []string{"--issuer", "https://auth.example.com"}, "lifetimes", statusOK, "tokens 60s"},
		{"bad", []string{"--issuer", "http://auth.example.com"}, "settings: serve", statusFail, "--issuer"},
		{"no issuer", nil, "settings: issuer", statusWarn, "--issuer"},
		{"passkeys", []string{"--issuer", "https://auth.example.com", "--passkey-domain", "example.net"}, "settings: serve", statusFail, "--passkey-domain"},
		{"cookies", []string{"--issuer", "https://auth.example.com", "--origin", "https://app.example.com"}, "cookies", statusOK, ""},
		{"other site", []string{"--issuer", "https://auth.example.com", "--origin", "https://app.example.net"}, "cookies", statusWarn, "example.net"},
		{"public suffix", []string{"--issuer", "https://co.uk"}, "cookies", statusFail, "public suffix"},
		{"proxy", []string{"--issuer", "https://auth.example.com"}, "proxy", statusWarn, "--trusted-proxies"},
		{"proxy named", []string{"--issuer", "https://auth.example.com", "--trusted-proxies", "10.0.0.1"}, "proxy", statusOK, ""},
		{"binding over http", []string{"--issuer", "http://127.0.0.1:8700"}, "device binding", statusWarn, "https"},
		{"metrics", []string{"--issuer", "https://auth.example.com"}, "metrics", statusWarn, "--metrics-listen"},
		{"metrics for all", []string{"--issuer", "https://auth.example.com", "--metrics-listen", "0.0.0.0:9700"}, "metrics", statusWarn, "credential"},
		{"token beyond idle", []string{"--issuer", "https://auth.example.com", "--token-lifetime", "5m", "--session-idle", "2m"}, "token lifetime", statusWarn, "--session-idle"},
		{"long token", []string{"--issuer", "https://auth.example.com", "--token-lifetime", "30m", "--long-token-lifetime"}, "token lifetime", statusWarn, "cut off"},
		{"window", []string{"--issuer", "https://auth.example.com", "--bound-window", "30m", "--session-idle", "15m"}, "device binding", statusWarn, "--bound-window"},
		{"short retention", []string{"--issuer", "https://auth.example.com", "--retention", "1h"}, "retention", statusWarn, "30d"},
		{"long retention", []string{"--issuer", "https://auth.example.com", "--retention", "1000d"}, "retention", statusWarn, "30d"},
		{"files", []string{"--issuer", "https://auth.example.com", "--max-connections", "2000000000"}, "open files", statusWarn, "LimitNOFILE"},
	} {
		t.Run(test.name, func(t *testing.T) {
			expect(t, diagnose(t, nil, nil, nil, append(test.args, "--database", database)...), test.check, test.status, test.words)
		})
	}
	expect(t, diagnose(t, nil, nil, []string{"COUNTERFOIL_ISUER=x"}, "--database", database), "environment", statusWarn, "COUNTERFOIL_ISSUER")
	expect(t, diagnose(t, nil, nil, nil, "--database", "mysql://x"), "address", statusFail, "sqlite:FILE")
}

// Nodes that agree, nodes that do not, and what stands in front of one.
func TestDoctorOnServers(t *testing.T) {
	start := func(database string, args ...string) *process {
		dir := t.TempDir()
		if database == "" {
			database = "sqlite:" + filepath.Join(dir, "counterfoil.db")
		}
		p, err := startServer(dir, cleanEnv(), append([]string{"--issuer", "http://127.0.0.1:8700", "--database", database}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.kill() })
		return p
	}
	path := filepath.Join(t.TempDir(), "counterfoil.db")
	one, two, stranger := start("sqlite:"+path), start("sqlite:"+path), start("")
	renamed := start("sqlite:"+path, "--issuer", "http://127.0.0.1:8702")
	key, err := runQuietly("api-key", "create", "--name", "doctor", "--scope", "verify", "--database", "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"COUNTERFOIL_API_KEY=" + strings.TrimSpace(key)}
	look := func(env []string, authorities ...string) []finding {
		return diagnose(t, nil, nil, env, "--issuer", "http://127.0.0.1:8700", "--database", "sqlite:"+path, "--authority", strings.Join(authorities, ","))
	}
	found := look(env, one.url, two.url)
	expect(t, found, "agreement", statusOK)
	expect(t, found, "nodes", statusFail, "SQLite is for one node")
	for _, at := range []string{one.url, two.url} {
		for _, check := range []string{"ready", "clock", "discovery", "feed"} {
			expect(t, found, "server "+at+": "+check, statusOK)
		}
	}
	expect(t, look(nil, one.url), "feed", statusWarn, "counterfoil api-key create")
	expect(t, look([]string{"COUNTERFOIL_API_KEY=cf_sk_no"}, one.url), "server "+one.url+": feed", statusFail, "refuses")
	expect(t, look(env, one.url, renamed.url), "agreement", statusFail, "different settings")
	found = look(env, stranger.url)
	expect(t, found, "keys", statusFail, "another database")
	expect(t, look(env, one.url, stranger.url), "agreement", statusFail, "signing keys")
	expect(t, diagnose(t, nil, nil, nil, "--issuer", "http://127.0.0.1:8701", "--database", "sqlite:"+path, "--authority", one.url), "discovery", statusFail, "calls itself")

	if err := two.kill(); err != nil {
		t.Fatal(err)
	}
	expect(t, look(env, two.url), "reach", statusFail, "refused")

	page := httptest.NewServer(http.NotFoundHandler())
	defer page.Close()
	expect(t, look(env, page.URL), "ready", statusFail, "not Counterfoil")

	behind, err := url.Parse(one.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(behind)
	proxy.ModifyResponse = func(r *http.Response) error {
		r.Header.Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		if strings.HasSuffix(r.Request.URL.Path, "/revocations") {
			return errors.New("no streams here")
		}
		return nil
	}
	front := httptest.NewServer(proxy)
	defer front.Close()
	found = look(env, front.URL)
	expect(t, found, "server "+front.URL+": clock", statusFail, "does not mint")
	expect(t, found, "server "+front.URL+": feed", statusFail, "502")

	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"code":"unavailable","detail":"The store does not answer."}`)
	}))
	defer broken.Close()
	expect(t, look(env, broken.URL), "ready", statusFail, "The store does not answer.")
}

// What clients see of a certificate at the issuer.
func TestDoctorOnTheIssuersCertificate(t *testing.T) {
	late := issue(t, "127.0.0.1", time.Now().Add(-90*day), time.Now().Add(-day))
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{late.pair}}
	server.StartTLS()
	defer server.Close()
	database := "sqlite:" + filepath.Join(t.TempDir(), "x.db")
	expect(t, diagnose(t, nil, late.roots, nil, "--issuer", server.URL, "--database", database), "issuer: reach", statusFail, "has expired")

	good := issue(t, "127.0.0.1", time.Now().Add(-day), time.Now().Add(day))
	server.TLS.Certificates[0] = good.pair
	expect(t, diagnose(t, nil, late.roots, nil, "--issuer", server.URL, "--database", database), "issuer: reach", statusFail, "not trusted")
}

func TestDoctorOnClocks(t *testing.T) {
	for ahead, status := range map[time.Duration]string{
		0: statusOK, 500 * time.Millisecond: statusOK, -2 * time.Second: statusWarn, 2 * time.Second: statusWarn, 6 * time.Second: statusFail, -time.Hour: statusFail,
	} {
		if f := judgeClock("database", ahead, time.Millisecond); f.Status != status {
			t.Errorf("%s: %+v, want %s", ahead, f, status)
		}
	}
	if f := judgeClock("clock", 5400*time.Millisecond, time.Second); f.Status != statusWarn {
		t.Errorf("within the doubt: %+v", f)
	}
}

func TestDoctorOnFeedAges(t *testing.T) {
	for age, status := range map[time.Duration]string{20 * time.Millisecond: statusOK, 2 * time.Second: statusWarn, time.Minute: statusFail} {
		if f := judgeAge(age); f.Status != status {
			t.Errorf("%s: %+v", age, f)
		}
	}
}
