package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

func healthCommand() *command {
	return &command{
		name:  "health",
		short: "Ask a running server whether it runs, for the health checks of containers",
		long: `Asks /healthz: the process runs. With --ready /readyz: it reaches its database, and the
clocks agree. A server without its database still serves keys and the feed, so what
restarts it should ask for health, and what sends it requests for readiness.`,
		examples: []string{
			"counterfoil health",
			"counterfoil health --ready --authority http://10.0.0.1:8700",
		},
		setup: func(a *app, f *flags) func(context.Context, []string) error {
			var ready boolValue
			at := textValue("http://127.0.0.1:8700")
			timeout := durationValue(doctorTimeout)
			f.add(&at, "authority", "URL", "the server")
			f.add(&ready, "ready", "", "ask whether it can serve sessions")
			f.add(&timeout, "timeout", "DURATION", "how long it may take to answer")
			return func(ctx context.Context, args []string) error {
				if err := noArgs(args); err != nil {
					return err
				}
				base, err := authorityURL(string(at))
				if err != nil {
					return err
				}
				path := "/healthz"
				if ready {
					path = "/readyz"
				}
				answer, err := ask(ctx, newHealthClient(time.Duration(timeout)), base+path, "")
				if err != nil {
					return fmt.Errorf("%s: %w", base, err)
				}
				if answer.status != http.StatusOK {
					return fmt.Errorf("%s%s answers %d: %s", base, path, answer.status, answer.problem())
				}
				newPrinter(a).printf("ok\n")
				return nil
			}
		},
	}
}

// authorityURL reads the address of a server, without a slash at its end.
func authorityURL(value string) (string, error) {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return "", usagef("--authority %q: want the address of a server, such as http://127.0.0.1:8700", value)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// newHealthClient asks once and follows nobody elsewhere.
func newHealthClient(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout:       timeout,
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// reply is what a server answered, as far as it is of use.
type reply struct {
	*http.Response
	status          int
	body            []byte
	asked, answered time.Time
}

// ask makes a GET request and reads at most a megabyte of the answer.
func ask(ctx context.Context, client *http.Client, address, apiKey string) (*reply, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	if apiKey != "" {
		request.Header.Set("Authorization", "Bearer "+apiKey)
	}
	out := &reply{asked: time.Now()}
	out.Response, err = client.Do(request)
	if err != nil {
		return nil, withoutURL(err)
	}
	out.answered, out.status = time.Now(), out.StatusCode
	out.body, err = io.ReadAll(io.LimitReader(out.Body, megabyte))
	if closing := out.Body.Close(); err == nil {
		err = closing
	}
	return out, err
}

// withoutURL drops what the caller says anyway.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
