package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

// The scripts in testdata/script show the command as it is typed. Beside the
// usual words of testscript they know:
//
//	fails CODE counterfoil …    it exits with CODE, and says why in one line on stderr
//	serve FLAGS…                starts `counterfoil serve` on a free port; $URL is where
//	shutdown                    ends it; its log is in serve.log, its stdout in serve.out
//	http METHOD URL [BODY]      makes a request; $TOKEN, when set, is the bearer; the status is on stderr
//	take NAME REGEXP            puts what the group of REGEXP found in stdout into $NAME
//	only NAMES…                 the folder holds these files and no others
//	busy NAME                   listens on a port and puts its address into $NAME
//	secret NAME                 puts a new seal secret into $NAME
//	damaged NAME                writes a file that begins like SQLite's and goes on otherwise
//	foreign NAME                writes a SQLite database of another application
//	certificate                 writes cert.pem and key.pem for 127.0.0.1
//	postgres                    makes an empty database; $PG is its URL. Ask [postgres] first
//	redis                       starts a server with a password; $REDIS is its URL. Ask [redis] first
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Values[running{}] = new(running)
			env.Vars = append(env.Vars, "TOKEN=")
			return nil
		},
		Condition: func(name string) (bool, error) {
			needs := map[string]string{"postgres": "COUNTERFOIL_TEST_POSTGRES", "redis": testenv.RedisBin}
			variable, ok := needs[name]
			switch {
			case !ok:
				return false, fmt.Errorf("unknown condition %q", name)
			case os.Getenv(variable) != "":
				return true, nil
			case os.Getenv("COUNTERFOIL_TEST_ALL") == "1":
				return false, fmt.Errorf("%s is not set: run make test", variable)
			}
			return false, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fails": scriptFails, "serve": scriptServe, "shutdown": scriptShutdown, "http": scriptHTTP, "take": scriptTake,
			"only": scriptOnly, "busy": scriptBusy, "secret": scriptSecret, "certificate": scriptCertificate,
			"damaged": scriptDamaged, "foreign": scriptForeign, "postgres": scriptPostgres, "redis": scriptRedis,
		},
	})
}

// running is the server of a script.
type running struct{ *process }

func scriptFails(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		ts.Fatalf("it did not fail: %v", err)
	}
	if got := fmt.Sprint(exit.ExitCode()); got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
	lines := strings.Split(strings.TrimRight(ts.ReadFile("stderr"), "\n"), "\n")
	said := 0
	for _, line := range lines {
		if strings.HasPrefix(line, "counterfoil: ") {
			said++
		} else if !strings.HasPrefix(line, "time=") {
			ts.Fatalf("stderr has a line that is neither the error nor a log line: %q", line)
		}
	}
	if said != 1 || !strings.HasPrefix(lines[len(lines)-1], "counterfoil: ") {
		ts.Fatalf("want one line that begins with counterfoil:, the last")
	}
}

func scriptServe(ts *testscript.TestScript, _ bool, args []string) {
	r := ts.Value(running{}).(*running)
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "COUNTERFOIL_SEAL", "COUNTERFOIL_ISSUER", "COUNTERFOIL_ISUER"} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	p, err := startServer(ts.MkAbs("."), env, args...)
	ts.Check(err)
	r.process = p
	ts.Setenv("URL", p.url)
	if m := regexp.MustCompile(` metrics=(http\S+)`).FindStringSubmatch(p.log.String()); m != nil {
		ts.Setenv("METRICS", m[1])
	}
	ts.Defer(func() { _ = p.kill() })
}

func scriptShutdown(ts *testscript.TestScript, _ bool, _ []string) {
	p := ts.Value(running{}).(*running).process
	if err := p.stop(); err != nil {
		ts.Fatalf("serve ended with %v\n%s", err, p.log)
	}
	ts.Check(os.WriteFile(ts.MkAbs("serve.log"), []byte(p.log.String()), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("serve.out"), []byte(p.stdout.String()), 0o600))
}

func scriptHTTP(ts *testscript.TestScript, neg bool, args []string) {
	var body io.Reader
	if len(args) > 2 {
		body = strings.NewReader(args[2])
	}
	r, err := http.NewRequest(args[0], args[1], body)
	ts.Check(err)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token := ts.Getenv("TOKEN"); token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if cert, err := os.ReadFile(ts.MkAbs("cert.pem")); err == nil {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(cert)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
		transport.ForceAttemptHTTP2 = true
	}
	answer, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(r)
	ts.Check(err)
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), string(data))
	fmt.Fprintln(ts.Stderr(), answer.Proto, answer.Status)
	if ok := answer.StatusCode < 400; ok == neg {
		ts.Fatalf("status %s\n%s", answer.Status, data)
	}
}

func scriptTake(ts *testscript.TestScript, _ bool, args []string) {
	m := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if m == nil {
		ts.Fatalf("stdout has no %s", args[1])
	}
	ts.Setenv(args[0], m[len(m)-1])
}

func scriptOnly(ts *testscript.TestScript, _ bool, want []string) {
	entries, err := os.ReadDir(ts.MkAbs("."))
	ts.Check(err)
	var have []string
	for _, e := range entries {
		if e.Name() != ".tmp" && e.Name() != "tmp" {
			have = append(have, e.Name())
		}
	}
	slices.Sort(want)
	if !slices.Equal(have, want) {
		ts.Fatalf("the folder holds %q, want %q", have, want)
	}
}

func scriptBusy(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[0], l.Addr().String())
}

func scriptSecret(ts *testscript.TestScript, _ bool, args []string) {
	var secret [32]byte
	rand.Read(secret[:])
	ts.Setenv(args[0], base64.StdEncoding.EncodeToString(secret[:]))
}

func scriptDamaged(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(sqliteMagic+strings.Repeat("?", 8192)), 0o600))
}

func scriptForeign(ts *testscript.TestScript, _ bool, args []string) {
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = db.Exec("CREATE TABLE invoices (id INTEGER PRIMARY KEY); CREATE TABLE customers (id INTEGER PRIMARY KEY)")
	ts.Check(errors.Join(err, db.Close()))
}

func scriptCertificate(ts *testscript.TestScript, _ bool, _ []string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		var out bytes.Buffer
		ts.Check(pem.Encode(&out, block))
		ts.Check(os.WriteFile(ts.MkAbs(name), out.Bytes(), 0o600))
	}
}

func scriptPostgres(ts *testscript.TestScript, _ bool, _ []string) {
	u, drop, err := newPostgres(filepath.Base(ts.Name()))
	ts.Check(err)
	ts.Defer(func() {
		if err := drop(); err != nil {
			ts.Logf("drop database: %v", err)
		}
	})
	ts.Setenv("PG", u)
}

// redisPassword has what a URL has to escape.
const redisPassword = "p@ss/word:%"

func scriptRedis(ts *testscript.TestScript, _ bool, _ []string) {
	r, err := testenv.StartRedis(context.Background(), os.Getenv(testenv.RedisBin), "")
	ts.Check(err)
	ts.Defer(func() {
		if err := r.Stop(); err != nil {
			ts.Logf("stop redis: %v", err)
		}
	})
	_, err = r.Do(context.Background(), "CONFIG", "SET", "requirepass", redisPassword)
	ts.Check(err)
	ts.Setenv("REDIS", "redis://:"+url.QueryEscape(redisPassword)+"@"+r.Addr)
	ts.Setenv("REDIS_ADDR", r.Addr)
}

var errNoPostgres = errors.New("COUNTERFOIL_TEST_POSTGRES is not set: run make test")

// newPostgres makes an empty database on the tests' server.
func newPostgres(name string) (source string, drop func() error, err error) {
	server := os.Getenv("COUNTERFOIL_TEST_POSTGRES")
	if server == "" {
		return "", nil, errNoPostgres
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", nil, err
	}
	db, err := sql.Open("pgx", server)
	if err != nil {
		return "", nil, err
	}
	name = strings.ToLower("cli_" + regexp.MustCompile(`\W`).ReplaceAllString(name, "_") + "_" + rand.Text()[:8])
	if _, err := db.Exec("CREATE DATABASE " + name); err != nil {
		return "", nil, errors.Join(err, db.Close())
	}
	u.Path = "/" + name
	return u.String(), func() error {
		_, err := db.Exec("DROP DATABASE " + name + " WITH (FORCE)")
		return errors.Join(err, db.Close())
	}, nil
}

// testPostgres is newPostgres for a Go test, which is skipped without a server.
func testPostgres(t *testing.T) string {
	t.Helper()
	u, drop, err := newPostgres(t.Name())
	if errors.Is(err, errNoPostgres) && os.Getenv("COUNTERFOIL_TEST_ALL") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := drop(); err != nil {
			t.Error(err)
		}
	})
	return u
}
