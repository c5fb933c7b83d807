package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
)

// serve has the pages of an account, under the issuer's path too, unless it is told not to.
func TestPages(t *testing.T) {
	get := func(p *process, path string) (int, string, string) {
		t.Helper()
		res, err := http.Get(p.url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, res.Request.URL.Path, string(body)
	}
	p := testServer(t, "--pages-name", "Harbour & Sons")
	for path, at := range map[string]string{"/account": "/account/sign-in", "/account/": "/account/sign-in", "/account/sign-up": "/account/sign-up"} {
		if status, got, body := get(p, path); status != http.StatusOK || got != at || !strings.Contains(body, "Harbour &amp; Sons") {
			t.Errorf("%s: %d at %s\n%s", path, status, got, body)
		}
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.PostForm(p.url+"/account/sign-up", url.Values{"email": {"ann@example.org"}, "password": {"four paper boats at noon"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "devices" {
		t.Errorf("sign-up: %s to %s", res.Status, res.Header.Get("Location"))
	}
	if offer := res.Header.Get("Secure-Session-Registration"); !strings.Contains(offer, `path="/v1/auth/dbsc/register"`) {
		t.Errorf("the offer to bind the session is %q", offer)
	}
	if status, _, body := get(p, "/healthz"); status != http.StatusOK {
		t.Errorf("the API beside the pages: %d %s", status, body)
	}

	p = testServer(t, "--issuer", "https://app.example/id", "--pages-name", "Harbour")
	for _, path := range []string{"/id/account/sign-in", "/account/sign-in"} {
		if status, _, body := get(p, path); status != http.StatusOK || !strings.Contains(body, "Harbour") {
			t.Errorf("%s: %d", path, status)
		}
	}
	for _, path := range []string{"/account/sign-in", "/healthz"} {
		res, err := http.Get(p.url + path)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Header.Get("Strict-Transport-Security"); res.Body.Close() != nil || got != "max-age=31536000; includeSubDomains" {
			t.Errorf("%s: Strict-Transport-Security %q", path, got)
		}
	}
	p = testServer(t, "--pages=false")
	if status, _, body := get(p, "/account/sign-in"); status != http.StatusNotFound || !strings.Contains(body, "not_found") {
		t.Errorf("--pages=false: %d %s", status, body)
	}
}
