package examples_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// startTraefik runs our configuration in a Traefik v3 that somebody has put
// there: no distribution has it, so that the tests do without.
func startTraefik(t *testing.T, auth *authority, up *service) string {
	binary := os.Getenv("COUNTERFOIL_TEST_TRAEFIK")
	if binary == "" {
		t.Skip("COUNTERFOIL_TEST_TRAEFIK is not set: the path of a Traefik v3")
	}
	dir, listen := proxyDir(t), freePort(t)
	configure(t, dir, listen, auth, up, "traefik.yml")
	p := start(t, []string{"HOME=" + dir}, binary, "--entrypoints.web.address="+listen, "--providers.file.filename="+filepath.Join(dir, "traefik.yml"),
		"--providers.file.watch=false", "--global.checknewversion=false", "--global.sendanonymoususage=false", "--log.level=DEBUG")
	p.says(`(Starting server|Server configuration reloaded|Configuration received)`)
	waitFor(t, "http://"+listen+"/v1/auth/session")
	return "http://" + listen
}

// waitFor returns when a route of the proxy answers, whatever it says of the
// credential.
func waitFor(t *testing.T, url string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		res, err := http.Get(url)
		if err != nil {
			continue
		}
		_ = res.Body.Close()
		if res.StatusCode == http.StatusUnauthorized {
			return
		}
	}
	t.Fatalf("%s does not answer", url)
}

// likeEnvoy does what the reference of Envoy (ext_authz v3, HTTP service) says
// that Envoy does with our configuration, whose lists it reads. No Envoy runs
// here: what the reference does not say is not tested.
type likeEnvoy struct {
	t              *testing.T
	prefix         string
	rules          string   // of headers_to_add
	request        []string // allowed_headers, and those that always go along
	upstream       []string // allowed_upstream_headers
	client         []string // allowed_client_headers, and those that always go along
	clientOnOK     []string // allowed_client_headers_on_success
	onError        int      // status_on_error
	counterfoil    *url.URL
	toCounterfoil  http.Handler
	toService      http.Handler
	withoutCookies bool
}

func startLikeEnvoy(t *testing.T, auth *authority, up *service) string {
	text, err := os.ReadFile(filepath.Join("gateway", "envoy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	value := func(pattern string) string {
		found := regexp.MustCompile(pattern).FindSubmatch(text)
		if found == nil {
			t.Fatalf("envoy.yaml has no %s", pattern)
		}
		return string(found[1])
	}
	if value(`failure_mode_allow: (\w+)`) != "false" || value(`code: (\w+)`) != "ServiceUnavailable" || value(`key: (\S+)`) != "Counterfoil-Rules" {
		t.Error("envoy.yaml is not the one that this was written for")
	}
	e := &likeEnvoy{
		t: t, prefix: value(`path_prefix: (\S+)`), rules: value(`value: (\S+)`),
		request:     append(exact(t, text, "allowed_headers"), "authorization"),
		upstream:    exact(t, text, "allowed_upstream_headers"),
		client:      append(exact(t, text, "allowed_client_headers"), "content-length", "www-authenticate", "location"),
		clientOnOK:  exact(t, text, "allowed_client_headers_on_success"),
		onError:     http.StatusServiceUnavailable,
		counterfoil: parsed(t, auth.url), toCounterfoil: keepingHost(parsed(t, auth.url)), toService: keepingHost(parsed(t, up.URL)),
		withoutCookies: value(`remove: (\w+)`) == "cookie",
	}
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	return s.URL
}

func keepingHost(to *url.URL) http.Handler {
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host
	}}
}

// exact is the list of patterns of that name.
func exact(t *testing.T, yaml []byte, name string) (names []string) {
	t.Helper()
	_, rest, found := strings.Cut(string(yaml), " "+name+":")
	if !found {
		t.Fatalf("envoy.yaml has no %s", name)
	}
	for _, line := range strings.Split(rest, "\n")[1:] {
		if strings.TrimSpace(line) == "patterns:" {
			continue
		}
		one, ok := strings.CutPrefix(strings.TrimSpace(line), "- exact: ")
		if !ok {
			break
		}
		names = append(names, one)
	}
	if len(names) == 0 {
		t.Fatalf("envoy.yaml: %s is empty", name)
	}
	return names
}

func (e *likeEnvoy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/v1/auth/") {
		e.toCounterfoil.ServeHTTP(w, r) // disabled for this route
		return
	}
	answer, err := e.ask(r)
	if err != nil || answer.StatusCode >= 500 {
		w.WriteHeader(e.onError)
		return
	}
	body, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if err != nil {
		e.t.Error(err)
	}
	if answer.StatusCode != http.StatusOK {
		move(w.Header(), answer.Header, e.client)
		w.WriteHeader(answer.StatusCode)
		_, _ = w.Write(body)
		return
	}
	move(r.Header, answer.Header, e.upstream)
	move(w.Header(), answer.Header, e.clientOnOK)
	if e.withoutCookies {
		r.Header.Del("Cookie")
	}
	e.toService.ServeHTTP(w, r)
}

// ask sends the client's method, path, query and host, the headers that are
// allowed, and no body.
func (e *likeEnvoy) ask(r *http.Request) (*http.Response, error) {
	question, err := http.NewRequestWithContext(r.Context(), r.Method, e.counterfoil.String()+e.prefix+r.RequestURI, nil)
	if err != nil {
		return nil, err
	}
	question.Host = r.Host
	question.Header = http.Header{"X-Envoy-Internal": {"true"}, "X-Forwarded-For": {"127.0.0.1"}, "User-Agent": nil}
	move(question.Header, r.Header, e.request)
	rules := e.rules
	switch { // each a filter of its own in an Envoy
	case strings.HasPrefix(r.URL.Path, "/admin/"):
		rules = "role=admin&live=1"
	case strings.HasPrefix(r.URL.Path, "/account/"):
		rules = "max_auth_age=10m&max_feed_age=1s"
	}
	question.Header.Set("Counterfoil-Rules", rules)
	return http.DefaultTransport.RoundTrip(question)
}

// move puts headers of some names in the place of those that are there.
func move(to, from http.Header, names []string) {
	for name, values := range from {
		if slices.Contains(names, strings.ToLower(name)) {
			to[name] = values
		}
	}
}
