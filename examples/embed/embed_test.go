package main

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/sqlstore"
)

const (
	ann      = "ann@example.org"
	bob      = "bob@example.org"
	password = "a quiet orchid on a ladder"
	other    = "seven umbrellas of basalt"
)

func TestMain(m *testing.M) {
	bcryptCost = bcrypt.MinCost
	os.Exit(m.Run())
}

// site is the application on a database of its own, served with TLS since its
// cookies are Secure.
type site struct {
	*app
	*httptest.Server
	t *testing.T
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(filepath.Join(dir, "embed.db")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	a, err := newApp(t.Context(), db, "https://app.example", counterfoil.SealFile(filepath.Join(dir, "seal")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.auth.Close() })
	s := &site{a, httptest.NewTLSServer(a.routes()), t}
	t.Cleanup(s.Close)
	return s
}

// device is a browser with its own cookies.
type device struct {
	*site
	name   string
	client http.Client
}

func (s *site) device(name string) *device {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &device{s, name, http.Client{Transport: s.Client().Transport, Jar: jar}}
}

func (d *device) do(method, path string, form url.Values, header ...string) (status int, page string) {
	d.t.Helper()
	r, err := http.NewRequest(method, d.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("User-Agent", d.name)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := d.client.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// want asks and insists on the status and on a piece of the page.
func (d *device) want(status int, piece, method, path string, form ...string) {
	d.t.Helper()
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	if got, page := d.do(method, path, values); got != status || !strings.Contains(page, piece) {
		d.t.Fatalf("%s: %s %s: %d, want %d and %q in\n%s", d.name, method, path, got, status, piece, page)
	}
}

func (d *device) signUp(email string) {
	d.t.Helper()
	d.want(200, email, "POST", "/sign-up", "email", email, "password", password)
}

func (d *device) signIn(email, password string) {
	d.t.Helper()
	d.want(200, email, "POST", "/sign-in", "email", email, "password", password)
}

func (d *device) cookies() map[string]string {
	u, err := url.Parse(d.URL)
	if err != nil {
		d.t.Fatal(err)
	}
	all := map[string]string{}
	for _, c := range d.client.Jar.Cookies(u) {
		all[c.Name] = c.Value
	}
	return all
}

// twoDevices is ann, signed in on a laptop and on a phone.
func (s *site) twoDevices() (laptop, phone *device) {
	s.t.Helper()
	laptop, phone = s.device("laptop"), s.device("phone")
	laptop.signUp(ann)
	phone.signIn(ann, password)
	laptop.want(200, "phone", "GET", "/")
	return laptop, phone
}

func TestStrangersSeeTheSignInPage(t *testing.T) {
	d := newSite(t).device("laptop")
	d.want(401, "Sign in", "GET", "/")
	d.want(401, "Sign in", "GET", "/admin")
	d.want(401, "Wrong e-mail address or password", "POST", "/sign-in", "email", ann, "password", password)
	d.want(400, "15 to 72", "POST", "/sign-up", "email", ann, "password", "short")
	d.signUp(ann)
	s := d.device("phone")
	s.want(401, "Wrong e-mail address or password", "POST", "/sign-in", "email", ann, "password", other)
	s.want(409, "has an account", "POST", "/sign-up", "email", "ANN@example.org", "password", other)
}

func TestPasswordChangeEndsTheOtherDevices(t *testing.T) {
	laptop, phone := newSite(t).twoDevices()
	stolen := laptop.cookies()["__Host-counterfoil"]

	laptop.want(401, "current password is wrong", "POST", "/password", "current", other, "new", other)
	phone.want(200, ann, "GET", "/")
	laptop.want(200, ann, "POST", "/password", "current", password, "new", other)

	phone.want(401, "password was changed on another device", "GET", "/")
	laptop.want(200, "this device", "GET", "/")
	if now := laptop.cookies()["__Host-counterfoil"]; now == stolen {
		t.Error("the cookie of the device that stays was not replaced")
	}
	if status, _ := laptop.device("thief").do("GET", "/", nil, "Cookie", "__Host-counterfoil="+stolen); status != 401 {
		t.Errorf("the cookie from before the change: %d, want 401", status)
	}
	phone.want(401, "Wrong", "POST", "/sign-in", "email", ann, "password", password)
	phone.signIn(ann, other)
}

// When one half cannot be done, neither is: here the sign-out fails.
func TestPasswordChangeIsOneTransaction(t *testing.T) {
	laptop, phone := newSite(t).twoDevices()
	if _, err := laptop.db.Exec(`CREATE TRIGGER broken BEFORE INSERT ON counterfoil_feed BEGIN SELECT RAISE(ABORT, 'no'); END`); err != nil {
		t.Fatal(err)
	}
	laptop.want(503, "Something went wrong", "POST", "/password", "current", password, "new", other)
	phone.want(200, ann, "GET", "/")
	laptop.want(200, ann, "GET", "/")
	tablet := laptop.device("tablet")
	tablet.want(401, "Wrong", "POST", "/sign-in", "email", ann, "password", other)
	tablet.signIn(ann, password)
	if _, err := laptop.db.Exec(`DROP TRIGGER broken`); err != nil {
		t.Fatal(err)
	}
	laptop.want(200, ann, "POST", "/password", "current", password, "new", other)
	phone.want(401, "password was changed", "GET", "/")
	tablet.want(401, "password was changed", "GET", "/")
}

// A transaction that is rolled back after the revocation leaves all as it was.
func TestRollback(t *testing.T) {
	laptop, phone := newSite(t).twoDevices()
	ctx := context.Background()
	id, err := laptop.userID(ctx, ann)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := laptop.db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(`UPDATE users SET password = 'x'`); err != nil {
		t.Fatal(err)
	}
	in, err := laptop.auth.InTx(tx)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.RevokeSubject(ctx, id, counterfoil.PasswordChanged); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	phone.want(200, ann, "GET", "/")
	laptop.want(200, ann, "GET", "/")
	laptop.device("tablet").signIn(ann, password)
}

// A sign-in that has checked the old password does not survive its change.
func TestSignInRacingAPasswordChange(t *testing.T) {
	s := newSite(t)
	s.device("laptop").signUp(ann)
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	id, err := s.userID(ctx, ann)
	must(err)
	epoch, err := s.auth.Epoch(ctx, id)
	must(err)
	old, ok, err := s.checkPassword(ctx, id, password)
	if must(err); !ok {
		t.Fatal("the password is wrong")
	}
	sessions, _, err := s.auth.Sessions(ctx, counterfoil.ListQuery{Subject: id})
	must(err)
	hash, err := bcrypt.GenerateFromPassword([]byte(other), bcryptCost)
	must(err)
	must(s.replacePassword(ctx, sessions[0], old, string(hash)))

	w := httptest.NewRecorder()
	must(s.start(w, httptest.NewRequest("POST", "/sign-in", nil), id, epoch))
	if w.Code != 401 || len(w.Result().Cookies()) != 0 {
		t.Errorf("the sign-in that began before: %d with cookies %v", w.Code, w.Result().Cookies())
	}
	if err := s.replacePassword(ctx, sessions[0], old, "x"); err == nil {
		t.Error("a change that checked a password of the past is taken")
	}
}

func TestDevices(t *testing.T) {
	laptop, phone := newSite(t).twoDevices()
	sid := func(d *device) string {
		s, err := d.auth.Authenticate(context.Background(), d.cookies()["__Host-counterfoil"])
		if err != nil {
			t.Fatal(err)
		}
		return s.ID
	}
	stranger := laptop.device("stranger")
	stranger.signUp(bob)
	stranger.want(404, "no such device", "POST", "/devices/end", "sid", sid(phone))
	phone.want(200, ann, "GET", "/")
	laptop.want(404, "no such device", "POST", "/devices/end", "sid", "x")
	laptop.want(200, ann, "POST", "/devices/end", "sid", sid(phone))
	phone.want(401, "signed out", "GET", "/")

	kept := laptop.cookies()
	laptop.want(200, "Sign in", "POST", "/sign-out")
	if left := laptop.cookies(); len(left) != 0 {
		t.Errorf("cookies left after sign-out: %v", left)
	}
	for name, value := range kept {
		if status, _ := laptop.device("thief").do("GET", "/", nil, "Cookie", name+"="+value); status != 401 {
			t.Errorf("%s still opens the page: %d", name, status)
		}
	}
}

func TestRolesFollowAtOnce(t *testing.T) {
	s := newSite(t)
	boss, clerk := s.device("boss"), s.device("clerk")
	boss.signUp(ann) // the first is admin
	clerk.signUp(bob)
	boss.want(200, bob, "GET", "/admin")
	clerk.want(403, "insufficient_scope", "GET", "/admin")
	clerk.want(403, "insufficient_scope", "POST", "/admin/role", "role", "admin")
	id, err := s.userID(context.Background(), bob)
	if err != nil {
		t.Fatal(err)
	}
	boss.want(200, bob, "POST", "/admin/role", "id", id, "role", "admin")
	clerk.want(200, ann, "GET", "/admin")
	boss.want(200, bob, "POST", "/admin/role", "id", id, "role", "")
	clerk.want(403, "insufficient_scope", "GET", "/admin")
	clerk.want(200, bob, "GET", "/")
}

func TestOtherSitesAreRefused(t *testing.T) {
	laptop, phone := newSite(t).twoDevices()
	for _, path := range []string{"/password", "/devices/end", "/sign-out", "/sign-in", "/sign-up"} {
		if status, _ := laptop.do("POST", path, nil, "Sec-Fetch-Site", "cross-site"); status != 403 {
			t.Errorf("POST %s from another site: %d, want 403", path, status)
		}
	}
	phone.want(200, ann, "GET", "/")
	laptop.want(200, ann, "GET", "/")
}

// A port in use is found out before anything is made.
func TestPortInUse(t *testing.T) {
	taken := httptest.NewServer(nil)
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "embed.db")
	if err := run(t.Context(), taken.Listener.Addr().String(), file); err == nil {
		t.Fatal("run takes a port that is in use")
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
