package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/jwk"
	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// fetchTimeout bounds a request for a document, from dialling to the last byte.
const fetchTimeout = 5 * time.Second

// newClient makes a client that follows no redirects and sends no cookies, on
// the transport of the one given, or on one of its own.
func newClient(given *http.Client) *http.Client {
	c := &http.Client{}
	if given != nil {
		c.Transport, c.Timeout = given.Transport, given.Timeout
	} else if shared, ok := http.DefaultTransport.(*http.Transport); ok {
		own := shared.Clone()
		own.MaxIdleConnsPerHost = 64 // live checks all go to one host
		c.Transport = own
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// newFeedClient makes the client of the feed: of HTTP/1.1, since a stream that
// shares its connection waits for others, and with a connection for each
// attempt, which may reach another node. Its time is not bounded by the client.
func newFeedClient(c *http.Client) *http.Client {
	own := *c
	own.Timeout = 0
	if shared, ok := c.Transport.(*http.Transport); ok {
		t := shared.Clone()
		t.DisableKeepAlives = true
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP1(true)
		own.Transport = t
	}
	return &own
}

// document is a fetched JSON document.
type document struct {
	body   []byte
	maxAge time.Duration
	age    time.Duration // how long caches in between have had it
}

// fetch gets a JSON document of at most 256 KiB. It asks caches in between to
// look whether there is a newer one.
func fetch(ctx context.Context, client *http.Client, url string, types ...string) (document, error) {
	return fetchAs(ctx, client, url, func(*http.Request) {}, types...)
}

// fetchAs is fetch with a credential.
func fetchAs(ctx context.Context, client *http.Client, url string, authorize func(*http.Request), types ...string) (document, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return document{}, err
	}
	req.Header.Set("Accept", strings.Join(append(types, "application/json"), ", "))
	req.Header.Set("Cache-Control", "no-cache")
	authorize(req)
	res, err := client.Do(req)
	if err != nil {
		return document{}, err
	}
	body, err := readJSON(res, types...)
	if err != nil {
		return document{}, fmt.Errorf("GET %s: %w", url, err)
	}
	return document{body, maxAge(res.Header), age(res.Header)}, nil
}

// readJSON reads the body of a 200 answer of the right type, bounded in size.
func readJSON(res *http.Response, types ...string) ([]byte, error) {
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, &statusError{res.StatusCode}
	}
	mediaType, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil {
		return nil, errors.New("the answer has no usable Content-Type")
	}
	good := mediaType == "application/json"
	for _, t := range types {
		good = good || mediaType == t
	}
	if !good {
		return nil, fmt.Errorf("the answer is %q, not JSON", mediaType)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, jwk.MaxSet+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > jwk.MaxSet:
		return nil, fmt.Errorf("the answer is longer than %d bytes", jwk.MaxSet)
	}
	return body, nil
}

type statusError struct{ status int }

func (e *statusError) Error() string { return fmt.Sprintf("the answer has status %d", e.status) }

// age reads Age (RFC 9111 section 5.1).
func age(h http.Header) time.Duration {
	s, err := strconv.ParseUint(h.Get("Age"), 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(s) * time.Second
}

// leastMaxAge is how long a key set stays fresh at least.
const leastMaxAge = 30 * time.Second

// maxAge reads Cache-Control, kept between half a minute and an hour.
func maxAge(h http.Header) time.Duration {
	for directive := range strings.SplitSeq(h.Get("Cache-Control"), ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(directive), "=")
		if !ok || !strings.EqualFold(name, "max-age") {
			continue
		}
		if s, err := strconv.ParseUint(value, 10, 31); err == nil {
			return min(max(time.Duration(s)*time.Second, leastMaxAge), time.Hour)
		}
	}
	return defaultMaxAge
}

// longestDiscovered is the most that an authority may say of its tokens.
const longestDiscovered = 24 * time.Hour

// discover fetches the authority's metadata (RFC 8414), insists that it is the
// issuer's (section 3.3), and returns the longest lifetime of its tokens, and
// the document. No address is taken from it: where to ask is configuration.
func (r *remoteKeys) discover(ctx context.Context) (time.Duration, []byte, error) {
	doc, err := fetch(ctx, r.client, r.authority+"/.well-known/oauth-authorization-server")
	if err != nil {
		return 0, nil, err
	}
	var issuer string
	longest := longestLifetime
	err = strictjson.Object(doc.body, func(name string, value []byte) (err error) {
		switch name {
		case "issuer":
			issuer, err = strictjson.String(value)
		case "cf_max_token_lifetime":
			var s int64
			s, err = strictjson.Int(value)
			if err == nil && (s < 1 || s > int64(longestDiscovered/time.Second)) {
				err = errors.New("not a lifetime in seconds")
			}
			longest = time.Duration(s) * time.Second
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return 0, nil, fmt.Errorf("discovery document: %w", err)
	}
	if issuer != r.issuer {
		err := fmt.Errorf("the authority at %s says that its issuer is %q, not %q", r.authority, issuer, r.issuer)
		select {
		case r.foreign <- err:
		default:
		}
		return 0, nil, err
	}
	return longest, doc.body, nil
}
