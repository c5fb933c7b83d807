package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// maxBody is the most bytes that a body may have.
const maxBody = 64 << 10

// call is one request on its way through a route.
type call struct {
	*api
	route *route
	w     http.ResponseWriter
	r     *http.Request

	token  string             // userSession: the session token, not yet looked up
	client string             // userSession: the application whose cookie brought it; empty for a Bearer
	key    counterfoil.APIKey // apiKey
}

func (c *call) ctx() context.Context { return c.r.Context() }

// endpoint is the one function that every call goes through: credential,
// body, work, answer.
func (a *api) endpoint(route *route) http.Handler {
	var serve http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{api: a, route: route, w: w, r: r}
		out, err := c.run()
		if err == nil {
			err = c.answer(out)
		}
		if err != nil {
			a.fail(w, r, route, err)
		}
	})
	if route.credential == accessToken {
		serve = a.auth.AnyAudience().Require()(serve)
	}
	traffic := a.metrics.route(route.name)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen(w).traffic = traffic
		serve.ServeHTTP(w, r)
	})
}

func (c *call) run() (any, error) {
	if err := c.authenticate(); err != nil {
		return nil, err
	}
	out, err := c.route.serve(c)
	return out, c.unproved(err)
}

func (c *call) authenticate() (err error) {
	switch c.route.credential {
	case userSession:
		c.token, c.client, err = c.sessionToken()
	case apiKey:
		c.key, err = c.apiKey()
	}
	return err
}

// sessionToken finds the session token: a Bearer wins over the cookie, and of
// two session cookies none is taken.
func (c *call) sessionToken() (token, client string, err error) {
	header := &http.Request{Header: http.Header{"Authorization": c.r.Header["Authorization"]}}
	token, err = c.auth.SessionTokenFrom(header, "")
	if !errors.Is(err, verify.ErrCredentialMissing) {
		return token, "", err
	}
	return c.sessionCookie()
}

func (c *call) sessionCookie() (token, client string, err error) {
	cookies := &http.Request{Header: http.Header{"Cookie": c.r.Header["Cookie"]}}
	for _, id := range c.clients {
		value, err := c.auth.SessionTokenFrom(cookies, id)
		switch {
		case errors.Is(err, verify.ErrCredentialMissing):
			continue
		case err != nil:
			return "", "", err
		case token != "":
			return "", "", verify.ErrCredentialAmbiguous
		}
		token, client = value, id
	}
	if token == "" {
		return "", "", verify.ErrCredentialMissing
	}
	return token, client, nil
}

func (c *call) apiKey() (counterfoil.APIKey, error) {
	values := c.r.Header["Authorization"]
	if len(values) > 1 {
		return counterfoil.APIKey{}, verify.ErrCredentialAmbiguous
	}
	scheme, text, _ := strings.Cut(strings.Join(values, ""), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return counterfoil.APIKey{}, verify.ErrCredentialMissing
	}
	key, err := c.auth.AuthenticateAPIKey(c.ctx(), strings.Trim(text, " "))
	if err != nil {
		return counterfoil.APIKey{}, err
	}
	if !slices.Contains(key.Scopes, c.route.scope) {
		return counterfoil.APIKey{}, &verify.Error{
			Status: http.StatusForbidden, Code: verify.CodeInsufficientScope, Scope: []string{c.route.scope},
		}
	}
	return key, nil
}

// decode fills in the members of in from path, query and body.
func (c *call) decode(in reflect.Value) error {
	takes := c.route.takes
	for name, field := range takes.path {
		if err := field.setText(name, c.r.PathValue(name), in.FieldByIndex(field.index)); err != nil {
			return err
		}
	}
	query, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return bad("query", "cannot be read: encode it as application/x-www-form-urlencoded")
	}
	if err := takes.decodeText(takes.query, query, in, c.route.lenient); err != nil {
		return err
	}
	if c.route.safe() {
		return nil
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	if c.route.form {
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return bad("body", "is not a form: encode it as application/x-www-form-urlencoded")
		}
		return takes.decodeText(takes.form, form, in, true)
	}
	return takes.decodeJSON(body, in)
}

var (
	errTooLarge  = &inputError{http.StatusRequestEntityTooLarge, "body", "must be at most 64 KiB"}
	errEncoding  = &inputError{http.StatusUnsupportedMediaType, "Content-Encoding", "is not taken: send the body as it is"}
	errNotJSON   = &inputError{http.StatusUnsupportedMediaType, "Content-Type", "must be application/json"}
	errNotForm   = &inputError{http.StatusUnsupportedMediaType, "Content-Type", "must be application/x-www-form-urlencoded"}
	errUnread    = &inputError{http.StatusBadRequest, "body", "could not be read to its end"}
	errMethod    = &inputError{http.StatusMethodNotAllowed, "method", "is not one that this address takes; see the header Allow"}
	errNoRoute   = &notFoundError{"There is no such address."}
	errNoSession = &notFoundError{"There is no such session."}
)

// body reads the body. An empty one needs no Content-Type.
func (c *call) body() ([]byte, error) {
	if encoding := c.r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, errEncoding
	}
	if c.r.ContentLength > maxBody {
		c.w.Header().Set("Connection", "close")
		return nil, errTooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, errTooLarge
	}
	if err != nil {
		return nil, errUnread
	}
	if len(body) == 0 {
		return nil, nil
	}
	mediaType, params, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		err = errors.New("not UTF-8")
	}
	switch {
	case c.route.form && (err != nil || mediaType != "application/x-www-form-urlencoded"):
		return nil, errNotForm
	case !c.route.form && (err != nil || mediaType != "application/json"):
		return nil, errNotJSON
	}
	return body, nil
}

// document is an answer that is written as it is.
type document interface {
	mediaType() string
	content() []byte
}

// served is an answer that writes itself.
type served interface {
	serve(c *call)
}

// answer writes what a call returned. Nothing of it is kept by a cache unless
// the route says so.
func (c *call) answer(out any) error {
	if s, ok := out.(served); ok {
		s.serve(c)
		return nil
	}
	h := c.w.Header()
	cache := c.route.cache
	if cache == "" || h.Get("Set-Cookie") != "" {
		cache = "private, no-store"
	}
	h.Set("Cache-Control", cache)
	if _, ok := out.(none); ok {
		c.w.WriteHeader(c.route.status)
		return nil
	}
	var body []byte
	if d, ok := out.(document); ok {
		h.Set("Content-Type", d.mediaType())
		body = d.content()
	} else {
		var buffer bytes.Buffer
		encoder := json.NewEncoder(&buffer)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(out); err != nil {
			return err
		}
		h.Set("Content-Type", "application/json")
		body = buffer.Bytes()
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(c.route.status)
	if c.r.Method != http.MethodHead {
		// A write fails when the client has gone; there is nobody left to tell.
		_, _ = c.w.Write(body)
	}
	return nil
}
