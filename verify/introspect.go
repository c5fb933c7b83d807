package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// introspector asks the authority about a token (RFC 7662).
type introspector struct {
	url       string
	client    *http.Client
	authorize func(*http.Request) // holds the API key where no printing finds it
	clock     func() time.Time
	log       *slog.Logger
	lastWord  atomic.Int64 // Unix seconds of the last complaint
}

func newIntrospector(cfg Config, client *http.Client) *introspector {
	key := cfg.APIKey
	return &introspector{
		url:       cfg.Authority + "/oauth2/introspect",
		client:    client,
		authorize: func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+key) },
		clock:     cfg.Clock,
		log:       cfg.Logger,
	}
}

// ask returns nil when the token still holds. ctx bounds it.
func (i *introspector) ask(ctx context.Context, token string, c *Claims) error {
	body := strings.NewReader(url.Values{"token": {token}}.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, i.url, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	i.authorize(req)
	res, err := i.client.Do(req)
	if err != nil {
		i.complain("a live check failed", err)
		return err
	}
	retryAfter := res.Header.Get("Retry-After")
	data, err := readJSON(res)
	if err == nil {
		return i.verdict(data, c)
	}
	if status := (*statusError)(nil); errors.As(err, &status) &&
		(status.status == http.StatusUnauthorized || status.status == http.StatusForbidden) {
		i.complain("the authority refuses the API key: Config.APIKey needs the scope verify", err)
	} else {
		i.complain("a live check failed", err)
	}
	e := *ErrUnavailable.(*Error)
	e.Cause = err
	if s, err := strconv.ParseUint(retryAfter, 10, 16); err == nil {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	return &e
}

// verdict reads the answer. One that says nothing clear is no answer.
func (i *introspector) verdict(data []byte, c *Claims) error {
	var active, told bool
	var sid, code string
	err := strictjson.Object(data, func(name string, value []byte) (err error) {
		switch name {
		case "active":
			told = true
			active, err = strictjson.Bool(value)
		case "sid":
			sid, err = strictjson.String(value)
		case "cf_code":
			code, err = strictjson.String(value)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	switch {
	case err != nil:
	case !told:
		err = errors.New("active is missing")
	case active && sid != "" && sid != c.SessionID:
		err = errors.New("it speaks of another session")
	}
	switch {
	case err != nil:
		err = fmt.Errorf("introspection answer: %w", err)
		i.complain("a live check failed", err)
		return err
	case active:
		return nil
	}
	// The authority tells more than active:false to those it knows.
	for _, known := range [...]error{ErrTokenStale, ErrTokenExpired, ErrTokenTooOld, ErrSessionRevoked, ErrSessionExpired, ErrSessionUnknown} {
		if known.(*Error).Code == code {
			return known
		}
	}
	return ErrTokenRevoked
}

// complain logs at most once in ten seconds: a route under load would fill the
// log of an outage.
func (i *introspector) complain(message string, err error) {
	now, last := i.clock().Unix(), i.lastWord.Load()
	if now-last >= 10 && i.lastWord.CompareAndSwap(last, now) {
		i.log.Error(message, "url", i.url, "error", err)
	}
}
