package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// SEC-03, SEC-76, SEC-123: after a scenario with every kind of credential, the
// database holds neither a usable secret nor an unsealed private key, and the
// log at level debug holds no credential.
func TestSecrets(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "secrets.db")
		testSecrets(t, "sqlite:"+file, func() []byte {
			var all []byte
			for _, suffix := range []string{"", "-wal"} {
				data, err := os.ReadFile(file + suffix)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, data...)
			}
			return all
		})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		source := testPostgres(t)
		testSecrets(t, source, func() []byte { return dumpPostgres(t, source) })
	})
}

func testSecrets(t *testing.T, database string, dump func() []byte) {
	sealFile := filepath.Join(t.TempDir(), "secrets.seal")
	const seal = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	if err := os.WriteFile(sealFile, []byte(seal+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := startServer(t.TempDir(), cleanEnv(), "--database", database, "--seal-file", sealFile,
		"--issuer", "https://secrets.example", "--log-level", "debug")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.kill() })
	key := commandOutput(t, "api-key", "create", "--name", "scan", "--database", database)
	found := scenario(t, &killClient{t: t, url: server.url, key: key, http: &http.Client{}})
	found["API key"] = []string{key}
	found["seal"] = []string{seal}

	stored := dump()
	if !bytes.Contains(stored, []byte("user-42")) {
		t.Fatal("the dump does not hold what was stored: the test looks at the wrong place")
	}
	if err := server.stop(); err != nil {
		t.Fatal(err)
	}
	log := server.log.String()
	if !strings.Contains(log, "level=DEBUG") {
		t.Fatal("the log holds nothing of level debug")
	}
	for kind, texts := range found {
		if len(texts) == 0 {
			t.Errorf("the scenario met no %s", kind)
		}
		for _, text := range texts {
			// What is between the public selector and the checksum is secret.
			secret := text
			if strings.HasPrefix(text, "cf_") {
				secret = text[len("cf_st_")+24 : len(text)-6]
			}
			if holds(stored, secret) {
				t.Errorf("SEC-03: the database holds a %s", kind)
			}
			if strings.Contains(log, secret) {
				t.Errorf("SEC-123: the log holds a %s", kind)
			}
		}
	}
	for _, der := range pkcs8In(stored) {
		if _, err := x509.ParsePKCS8PrivateKey(der); err == nil {
			t.Error("SEC-76: the database holds a private key in the clear")
		}
	}
	if regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY`).Match(stored) {
		t.Error("SEC-76: the database holds a private key as PEM")
	}
}

// holds looks for a secret as it is and in the usual spellings.
func holds(data []byte, secret string) bool {
	raw := []byte(secret)
	for _, spelling := range []string{secret, hex.EncodeToString(raw), base64.StdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw)} {
		if bytes.Contains(data, []byte(spelling)) {
			return true
		}
	}
	return false
}

// pkcs8In returns whatever could be the start of a PKCS #8 private key: a
// sequence with version 0 and an algorithm of ours.
func pkcs8In(data []byte) (candidates [][]byte) {
	for _, version := range [][]byte{{0x02, 0x01, 0x00, 0x30, 0x13}, {0x02, 0x01, 0x00, 0x30, 0x05}} { // P-256, Ed25519
		for at := 0; ; at++ {
			i := bytes.Index(data[at:], version)
			if i < 0 {
				break
			}
			at += i
			for _, head := range []int{2, 3, 4} {
				if start := at - head; start >= 0 && data[start] == 0x30 {
					length := int(data[start+1])
					if head == 3 {
						length = int(data[start+2])
					}
					if end := start + head + length; end <= len(data) {
						candidates = append(candidates, data[start:end])
					}
				}
			}
		}
	}
	return candidates
}

// The detector finds a key that is there: otherwise it would prove nothing.
func TestSecretsDetector(t *testing.T) {
	for _, alg := range []string{"ES256", "EdDSA"} {
		der := newPKCS8(t, alg)
		found := false
		for _, candidate := range pkcs8In(append(append([]byte("some bytes before"), der...), "and after"...)) {
			_, err := x509.ParsePKCS8PrivateKey(candidate)
			found = found || err == nil
		}
		if !found {
			t.Errorf("%s: a private key in the clear is not found", alg)
		}
	}
	if !holds([]byte("x"+hex.EncodeToString([]byte("secret"))), "secret") {
		t.Error("a secret in hex is not found")
	}
}

// scenario meets every kind of credential and returns them.
func scenario(t *testing.T, c *killClient) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	call := func(method, path, bearer, body string, want int) map[string]any {
		t.Helper()
		status, answer, err := c.do(method, path, bearer, body)
		if err != nil || status != want {
			t.Fatalf("%s %s: %d %s %v", method, path, status, answer, err)
		}
		got := map[string]any{}
		if len(answer) > 0 {
			if err := json.Unmarshal(answer, &got); err != nil {
				t.Fatal(err)
			}
		}
		for field, kind := range map[string]string{"session_token": "session token", "access_token": "access token", "token": "reset token"} {
			if text, ok := got[field].(string); ok {
				found[kind] = append(found[kind], text)
			}
		}
		return got
	}
	text := func(got map[string]any, field string) string {
		t.Helper()
		s, ok := got[field].(string)
		if !ok {
			t.Fatalf("no %s in %v", field, got)
		}
		return s
	}
	const password, changed = "four paper boats at noon", "five paper boats at dawn"
	found["password"] = []string{password, changed}

	up := call("POST", "/v1/auth/sign-up", "", `{"email":"ann@example.org","password":"`+password+`","transport":"body"}`, 201)
	session := text(up, "session_token")
	call("GET", "/oauth2/userinfo", text(up, "access_token"), "", 200)
	call("POST", "/v1/auth/refresh", session, "", 200)
	step := call("POST", "/v1/auth/step-up", session, `{"password":"`+password+`"}`, 200)
	if rotated, ok := step["session_token"].(string); ok {
		session = rotated
	}
	after := call("POST", "/v1/auth/password", session, `{"current":"`+password+`","new":"`+changed+`"}`, 200)
	if rotated, ok := after["session_token"].(string); ok {
		session = rotated
	}
	call("POST", "/v1/auth/sign-in", "", `{"email":"ann@example.org","password":"`+changed+`x"}`, 401)
	call("POST", "/v1/auth/refresh", session+"x", "", 401)
	own := call("POST", "/v1/sessions", c.key, `{"subject":"user-42"}`, 201)
	call("POST", "/v1/sessions/authenticate", c.key, `{"session_token":"`+text(own, "session_token")+`"}`, 200)
	call("POST", "/v1/sessions/authenticate", c.key, `{"access_token":"`+text(own, "access_token")+`"}`, 200)
	call("POST", "/v1/sessions/authenticate", c.key, `{"access_token":"`+text(own, "access_token")+`x"}`, 401)
	user := up["session"].(map[string]any)["subject"]
	call("POST", fmt.Sprintf("/v1/users/%s/password-reset", user), c.key, "", 201)
	call("DELETE", "/v1/users/user-42/sessions", c.key, "", 204)
	call("GET", "/oauth2/userinfo", text(own, "access_token"), "", 401)
	return found
}

// dumpPostgres returns every row of every table as text, and binary columns
// also as they are.
func dumpPostgres(t *testing.T, source string) []byte {
	t.Helper()
	db, err := sql.Open("pgx", source)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	d := &database{db: db}
	tables, err := d.strings(t.Context(), `SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = current_schema()`)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	binary := regexp.MustCompile(`\\+x([0-9a-f]{2,})`)
	for _, table := range tables {
		rows, err := d.strings(t.Context(), `SELECT t::text FROM `+table+` AS t`)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			all = append(append(all, row...), '\n')
			for _, m := range binary.FindAllStringSubmatch(row, -1) {
				data, err := hex.DecodeString(m[1])
				if err != nil {
					t.Fatal(err)
				}
				all = append(append(all, data...), '\n')
			}
		}
	}
	return all
}

func newPKCS8(t *testing.T, algorithm string) []byte {
	t.Helper()
	var key any
	var err error
	if algorithm == "EdDSA" {
		_, key, err = ed25519.GenerateKey(rand.Reader)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
