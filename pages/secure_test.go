package pages_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/pages"
)

func onAddress(c *counterfoil.Config) { c.Issuer = "https://192.0.2.1" }

// SEC-101: where next may lead, and what it is when it may not.
func TestSEC101RedirectTargets(t *testing.T) {
	a := setup(t, pages.WithRedirectOrigins("https://shop.example", "http://localhost:3000"))
	b := a.signedUp(ada)
	for _, good := range []string{
		"/", "/orders", "/orders?page=2&x=%2F%2F", "/orders#last", "/a/b/", "/%C3%BC", "/a%20b", "/x?next=https://evil.example", "/a.b/..c", "devices", "passkeys", "password",
		"https://shop.example", "https://shop.example/", "https://shop.example/cart?x=1", "http://localhost:3000/dev",
	} {
		if got := b.leads(good); got != good {
			t.Errorf("next=%q leads to %q", good, got)
		}
	}
	tricks := []string{
		"", "//evil.example", "///evil.example", "////evil.example", `/\evil.example`, `\/evil.example`, `\\evil.example`, `/\/evil.example`,
		"/\t/evil.example", "/\n/evil.example", "/\r/evil.example", "\t//evil.example", " //evil.example", "/ /evil.example", "/%09/evil.example",
		"/%2f/evil.example", "/%2F%2Fevil.example", "/%5cevil.example", "/%5C%5Cevil.example", "/%252f%252fevil.example", "/%25252f%25252fevil.example",
		"/..//evil.example", "/.//evil.example", "/a/../..//evil.example", "/a//evil.example", "/%2e%2e//evil.example", "/./x", "/a/%2e%2e/x",
		"https://evil.example", "https:evil.example", "https:/evil.example", "HTTPS://SHOP.EXAMPLE/", "http://shop.example/", "https://shop.example.evil.example/",
		"https://shop.example@evil.example/", "https://shop.example:443/", "https://shop.example:8443/", "https://user:pass@shop.example/", `https://shop.example\@evil.example`,
		"https://shop.example//evil.example", "https://shop.example?x", "https://shop.example#@evil.example", "https://sub.shop.example/", "https://shop.examplex/",
		"javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "mailto:x@evil.example", "evil.example", "evil.example/x", "?next=//evil.example", "#//evil.example",
		"/\x00evil", "/\u2028", "/ü", "/%zz", "/%00", "/%0d%0aSet-Cookie:x=y", "/\u2215evil.example", "sign-out", "sign-in", "end-others", "step-up", "devices/", "/" + strings.Repeat("a", 2048),
	}
	if len(tricks) < 40 {
		t.Fatalf("%d tricks only", len(tricks))
	}
	for _, trick := range tricks {
		if got := b.leads(trick); got != "devices" {
			t.Errorf("next=%q leads to %q", trick, got)
		}
	}
	// What the page shows is what the form does.
	for next, want := range map[string]string{"/orders?page=2": "/orders?page=2", "//evil.example": "devices", "https://shop.example/cart": "https://shop.example/cart"} {
		p := b.still().post("/account/sign-in", form("email", ada, "password", word, "next", next)).is(http.StatusSeeOther)
		if got := p.header.Get("Location"); got != want {
			t.Errorf("next=%q leads to %q", next, got)
		}
	}
}

// leads is where the sign-in page sends who is signed in already.
func (b *browser) leads(next string) string {
	b.Helper()
	return linkOf(b.get("/account/sign-in?"+form("next", next).Encode()).is(200), "Go on")
}

// SEC-102, SEC-103: on every answer, good and bad.
func TestSEC102SEC103Headers(t *testing.T) {
	a := setup(t, pages.WithRedirectOrigins("https://shop.example"))
	b := a.signedUp(ada)
	paths := []string{
		"", "sign-in", "sign-up", "forgot-password", "reset-password", "signed-out", "devices", "password", "passkeys", "step-up", "sign-out", "nowhere", "a/b/c",
		"assets/pages.css", "assets/pages.js", "assets/counterfoil.css", "assets/mark.svg", "assets/theme.css", "assets/nothing",
	}
	for _, who := range []*browser{a.browser(""), b} {
		for _, path := range paths {
			for _, method := range []string{"GET", "HEAD", "POST", "DELETE"} {
				if who == b && method == "POST" && path == "sign-out" {
					continue
				}
				p := who.still().do(method, "/account/"+path, "")
				at := method + " " + path
				for name, want := range map[string]string{
					"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin",
					"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
					"Strict-Transport-Security": "max-age=31536000",
				} {
					if got := p.header.Get(name); got != want {
						t.Errorf("%s: %s is %q, want %q", at, name, got, want)
					}
				}
				policy := p.header.Get("Content-Security-Policy")
				for _, want := range []string{
					"default-src 'none'", "script-src 'self';", "style-src 'self';", "form-action 'self' https://shop.example;",
					"base-uri 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
				} {
					if !strings.Contains(policy, want) {
						t.Errorf("SEC-102: %s: no %s in %s", at, want, policy)
					}
				}
				if strings.Contains(policy, "unsafe") || !strings.Contains(p.header.Get("Permissions-Policy"), "camera=()") {
					t.Errorf("%s: %v", at, p.header)
				}
				if got := p.header.Get("Cache-Control"); !strings.Contains(got, "no-store") {
					t.Errorf("SEC-10: %s: Cache-Control %q", at, got)
				}
				if method == "HEAD" && p.text != "" {
					t.Errorf("%s has a body", at)
				}
			}
		}
	}
	p := b.get("/account/devices")
	for n := range p.root.Descendants() {
		if href, _ := attr(n, "href"); n.Data == "link" && strings.HasSuffix(href, ".css") {
			t.Errorf("%s has no version", href)
		} else if n.Data == "link" {
			if got := b.get("/account/" + href).is(200).header.Get("Cache-Control"); !strings.Contains(got, "immutable") {
				t.Errorf("%s: Cache-Control %q", href, got)
			}
		}
	}
}

// SEC-98, SEC-19: what another site has the browser send changes nothing.
func TestSEC98OtherSites(t *testing.T) {
	a := setup(t)
	b := a.signedUp(ada)
	phone := a.signedIn(ada, iphone)
	before := b.cookie(cookie).Value
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Sec-Fetch-Site", "", "Origin", "https://evil.example"},
		{"Sec-Fetch-Site", "", "Origin", "null"},
	} {
		for path, fields := range map[string]url.Values{
			"sign-in": form("email", ada, "password", word), "sign-up": form("email", "eve@example.com", "password", word),
			"sign-out": nil, "end-others": nil, "end-device": form("sid", phone.session().ID), "password": form("current", word, "new", newWord),
			"step-up": form("password", word), "step-up?next=/pay": form("a", "b"), "passkeys": nil, "rename-passkey": nil, "remove-passkey": nil,
			"passkey-options": form("for", "sign-in"), "forgot-password": form("email", ada), "reset-password": nil,
		} {
			p := b.post("/account/"+path, fields, headers...).is(http.StatusForbidden, "from another site")
			if got := p.header.Values("Set-Cookie"); len(got) > 0 {
				t.Errorf("%s from another site sets %s", path, got)
			}
		}
	}
	if b.cookie(cookie).Value != before {
		t.Error("the session token changed")
	}
	phone.get("/account/devices").is(200, "this device")
	b.do(http.MethodPost, "/account/end-others", "{}", "Content-Type", "application/json").is(400)
	b.do(http.MethodPost, "/account/end-others", "a=1&a=2").is(400)
	b.do(http.MethodPost, "/account/end-others", "a="+strings.Repeat("b", 64<<10)).is(413)
	b.get("/account/end-others").is(405)
	phone.get("/account/devices").is(200, "this device")
}

// SEC-104: what devices and users call themselves is text, and only text.
func TestSEC104HostileText(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)> ' onmouseover=x {{.Email}} </title></style>`
	a := setup(t, pages.WithName("Tom & Jerry's <b>"))
	b := a.signedUp(ada)
	for _, agent := range []string{evil, "Mozilla/5.0 (" + evil + ") Gecko/1 Firefox/1", "<svg/onload=alert(1)>/1.0", "\u202eevil", strings.Repeat("A", 300), "Mozilla/5.0 (" + strings.Repeat("(", 200), ""} {
		_, err := a.auth.StartSession(t.Context(), counterfoil.SignIn{Subject: b.session().Subject, Device: &counterfoil.Device{UserAgent: agent, IP: "<b>"}, Methods: []string{"pwd"}})
		a.must(err)
	}
	all := []*page{
		b.get("/account/devices").is(200, "Tom & Jerry's <b>"),
		b.get("/account/sign-in?" + form("next", evil).Encode()),
		a.browser("").get("/account/sign-in?" + form("next", evil).Encode()),
		a.browser("").post("/account/sign-in", form("email", evil, "password", word, "next", evil)),
		a.browser("").post("/account/sign-up", form("email", evil, "password", word, "next", evil)),
		a.browser("").post("/account/reset-password", form("token", evil, "new", evil)),
		b.get("/account/step-up?" + form("next", evil).Encode()),
		b.post("/account/step-up?"+form("next", "/pay").Encode(), form(evil, evil)),
		b.get("/account/" + url.PathEscape(evil)),
		b.get("/account/devices?" + form("after", evil).Encode()),
		b.post("/account/rename-passkey", form("id", evil, "name", evil)),
	}
	all = append(all, all[7].submit("step-up", "password", word))
	for _, p := range all {
		for n := range p.root.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			src, _ := attr(n, "src")
			switch {
			case n.Data == "script" && strings.Contains(src, "assets/pages.js?v=") && n.FirstChild == nil:
			case n.Data == "script", n.Data == "img", n.Data == "iframe", n.Data == "style", n.Data == "base":
				t.Errorf("%s has a <%s>", p.at, n.Data)
			}
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") || a.Key == "style" {
					t.Errorf("%s: <%s %s>", p.at, n.Data, a.Key)
				}
			}
		}
	}
}

// Any prefix will do: links are relative.
func TestPrefix(t *testing.T) {
	a := setupAt(t, "/my/own", nil)
	b := a.browser("")
	p := b.post("/my/own/sign-up", form("email", ada, "password", word)).is(200, "Your devices")
	if p.at != "/my/own/devices" {
		t.Errorf("led to %s", p.at)
	}
	for _, path := range []string{"devices", "passkeys", "password", "step-up", "sign-in", "nowhere", "no/where/at/all"} {
		p := b.get("/my/own/" + path)
		base, err := url.Parse(p.at)
		a.must(err)
		for n := range p.root.Descendants() {
			for _, name := range []string{"href", "src", "action"} {
				link, ok := attr(n, name)
				if !ok || strings.HasPrefix(link, "#") {
					continue
				}
				to, err := base.Parse(link)
				a.must(err)
				if !strings.HasPrefix(to.Path, "/my/own/") || strings.Count(to.Path, "/") > 3+strings.Count(to.Path, "assets/") {
					t.Errorf("%s: %s=%q leads to %s", path, name, link, to.Path)
				}
			}
		}
	}
	b.get("/orders").is(200, "orders of")
	b.post("/my/own/sign-out", nil).is(200)
	b.get("/orders").is(200, "Sign in")
}

func TestOptions(t *testing.T) {
	a := setup(t, pages.WithNext("/orders"), pages.WithoutSignUp(), pages.WithCookiesKept(),
		pages.WithTheme(pages.Theme{Accent: "#7a1f5c", OnAccent: "white"}, pages.Theme{Paper: "oklch(20% 0.02 250)"}))
	_, err := a.users.Create(t.Context(), newUser(ada))
	a.must(err)
	b := a.browser("")
	b.get("/account/sign-in").is(200).isNot("Create an account")
	b.get("/account/sign-up").is(404)
	_, p := b.options("for", "sign-up", "email", "eve@example.com")
	p.is(404)
	b.post("/account/sign-in", form("email", ada, "password", word)).is(200, "orders of")
	css := b.get("/account/assets/theme.css").is(200).text
	for _, want := range []string{"--accent: #7a1f5c;", "--on-accent: white;", "--paper: oklch(20% 0.02 250);"} {
		if !strings.Contains(css, want) {
			t.Errorf("theme.css lacks %s:\n%s", want, css)
		}
	}
	if !strings.Contains(b.get("/account/devices").text, "assets/theme.css") {
		t.Error("the theme is not loaded")
	}
	if got := b.still().post("/account/sign-out", nil).header.Get("Clear-Site-Data"); got != "" {
		t.Errorf("WithCookiesKept: Clear-Site-Data %s", got)
	}
}

func TestWrongOptionsPanic(t *testing.T) {
	a := setup(t)
	for name, build := range map[string]func(){
		"no authority":   func() { pages.Handler(nil, a.users) },
		"no directory":   func() { pages.Handler(a.auth, nil) },
		"empty name":     func() { pages.WithName("") },
		"long name":      func() { pages.WithName(strings.Repeat("a", 61)) },
		"two lines":      func() { pages.WithHelp("a\nb") },
		"next elsewhere": func() { pages.Handler(a.auth, a.users, pages.WithNext("https://evil.example")) },
		"next":           func() { pages.Handler(a.auth, a.users, pages.WithNext("//evil.example")) },
		"origin":         func() { pages.WithRedirectOrigins("https://*.example") },
		"client":         func() { pages.Handler(a.auth, a.users, pages.WithClientID("other")) },
		"colour":         func() { pages.WithTheme(pages.Theme{Ink: "red;} body{display:none"}, pages.Theme{}) },
		"url":            func() { pages.WithTheme(pages.Theme{}, pages.Theme{Paper: "url(https://evil.example)"}) },
		"mail base":      func() { pages.WithSendReset("http://app.example", nil) },
		"mail query":     func() { pages.WithSendReset("https://app.example/?x", (&outbox{}).send) },
		"mail hook":      func() { pages.WithSendReset("https://app.example", nil) },
		"prefix":         func() { pages.SignedOut("account") },
		"prefix host":    func() { pages.StepUp("//evil.example") },
		"device":         func() { pages.WithDeviceAPI("auth") },
		"logger":         func() { pages.WithLogger(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if p := recover(); p == nil || !strings.HasPrefix(fmt.Sprint(p), "pages: ") {
					t.Errorf("panics with %v", p)
				}
			}()
			build()
		})
	}
}
