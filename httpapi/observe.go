package httpapi

import (
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"
	"time"
	"unicode"

	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/problem"
)

// observed notes what is answered, for the log. [http.ResponseController]
// reaches through it.
type observed struct {
	http.ResponseWriter
	id     string
	route  string // its pattern, since a path may hold what is nobody's business
	code   string
	status int
	bytes  int64

	traffic *traffic // of the route; nil: none was found, or nothing is counted
}

// Problem is told the code of a problem that is written.
func (o *observed) Problem(code string) { o.code = code }

func (o *observed) WriteHeader(status int) {
	if o.status == 0 && status >= 200 {
		o.status = status
	}
	o.ResponseWriter.WriteHeader(status)
}

func (o *observed) Write(b []byte) (int, error) {
	if o.status == 0 {
		o.status = http.StatusOK
	}
	n, err := o.ResponseWriter.Write(b)
	o.bytes += int64(n)
	return n, err
}

// Unwrap lets [http.ResponseController] reach the connection.
func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// observe is the outermost layer: it names requests, logs them, and answers
// for handlers that panic. Neither headers nor bodies nor query strings are
// ever logged.
func (a *api) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		o := &observed{ResponseWriter: w, id: opaque.RandomText()}
		w.Header().Set("X-Request-Id", o.id)
		defer func() {
			if p := recover(); p != nil {
				a.recovered(o, r, p)
			}
			a.record(o, r, start)
		}()
		next.ServeHTTP(o, r)
	})
}

func (a *api) recovered(o *observed, r *http.Request, p any) {
	if p == http.ErrAbortHandler {
		panic(p)
	}
	a.log.ErrorContext(r.Context(), "panic while serving a request", "request_id", o.id,
		"method", printable(r.Method), "route", o.route, "panic", redact(fmt.Sprint(p)), "stack", redact(string(debug.Stack())))
	if o.status != 0 {
		panic(http.ErrAbortHandler) // the client must not take half an answer for a whole one
	}
	o.code = codeInternal
	o.Header().Del("Set-Cookie")
	problem.Write(bodiless(o, r), problem.Problem{Status: http.StatusInternalServerError, Code: codeInternal,
		Detail: "Something went wrong here. It has been logged under the X-Request-Id of this answer."})
}

func (a *api) record(o *observed, r *http.Request, start time.Time) {
	if a.metrics != nil {
		a.metrics.count(o, time.Since(start))
	}
	if !a.log.Enabled(r.Context(), slog.LevelDebug) {
		return
	}
	a.log.LogAttrs(r.Context(), slog.LevelDebug, "request",
		slog.String("request_id", o.id), slog.String("method", printable(r.Method)), slog.String("route", o.route),
		slog.Int("status", o.status), slog.String("code", o.code), slog.Int64("bytes", o.bytes),
		slog.Duration("took", time.Since(start)), slog.String("client", a.auth.ClientIP(r)))
}

func seen(w http.ResponseWriter) *observed {
	for {
		switch t := w.(type) {
		case *observed:
			return t
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return &observed{}
		}
	}
}

func note(w http.ResponseWriter, route string)    { seen(w).route = route }
func noteCode(w http.ResponseWriter, code string) { seen(w).code = code }
func requestID(w http.ResponseWriter) string      { return seen(w).id }
func routeOf(w http.ResponseWriter) string        { return seen(w).route }

// headOnly drops the body of an answer to HEAD.
type headOnly struct{ http.ResponseWriter }

// Problem passes the code on.
func (h headOnly) Problem(code string) { noteCode(h, code) }

func (headOnly) Write(b []byte) (int, error)   { return len(b), nil }
func (h headOnly) Unwrap() http.ResponseWriter { return h.ResponseWriter }
func bodiless(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
	if r.Method == http.MethodHead {
		return headOnly{w}
	}
	return w
}

var secrets = regexp.MustCompile(`cf_[a-z]{2}_[0-9A-Za-z]+|eyJ[0-9A-Za-z_-]{8,}[0-9A-Za-z_.-]*`)

// redact takes credentials out of a text that is logged or sent.
func redact(s string) string {
	if !strings.Contains(s, "cf_") && !strings.Contains(s, "eyJ") {
		return s
	}
	return secrets.ReplaceAllStringFunc(s, func(secret string) string {
		if strings.HasPrefix(secret, "cf_") {
			return secret[:6] + "[redacted]"
		}
		return "[redacted]"
	})
}

// printable makes a short text of a client fit for a log.
func printable(s string) string {
	const most = 32
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return redact(s)
}
