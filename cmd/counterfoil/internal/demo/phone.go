package demo

import (
	"encoding/json"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// phone is the second device. A browser has one session cookie a host, so the
// page's server keeps the other session token: the page sees access tokens
// only, as with its own session.
type phone struct {
	subject string
	token   string // the session token
}

// What the second device calls itself. The address is of a network that
// RFC 5737 keeps for examples.
const (
	phoneAgent = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
	phoneIP    = "203.0.113.24"
)

func (f *Front) phoneSubject() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.phone.subject
}

func (f *Front) phoneToken() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.phone.token
}

func (f *Front) phoneRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /demo/phone", f.openPhone)
	device := began(f.proxy(func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: f.Switch.Address()})
		r.Out.Header.Del("Cookie")
		r.Out.Header.Del("Authorization")
		if token := f.phoneToken(); token != "" {
			r.Out.Header.Set("Authorization", "Bearer "+token)
		}
		r.Out.Host = r.In.Host
	}))
	for _, call := range []string{"POST /phone/v1/auth/refresh", "POST /phone/v1/auth/sign-out"} {
		mux.Handle(call, http.StripPrefix("/phone", device))
	}
}

// openPhone signs a user in on the second device, as a backend does that has
// checked who it is.
func (f *Front) openPhone(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Subject string `json:"subject"`
	}
	if !read(w, r, &in) {
		return
	}
	res, err := f.backend(r.Context(), http.MethodPost, "/v1/sessions", map[string]any{
		"subject": in.Subject, "amr": []string{"pwd"},
		"device": map[string]string{"user_agent": phoneAgent, "ip": phoneIP},
	})
	if err != nil {
		unreachable(w)
		return
	}
	if res.status == http.StatusCreated {
		var grant map[string]json.RawMessage
		var token string
		err := json.Unmarshal(res.body, &grant)
		if err == nil {
			err = json.Unmarshal(grant["session_token"], &token)
		}
		if err != nil || token == "" {
			unreachable(w)
			return
		}
		f.mu.Lock()
		f.phone = phone{in.Subject, token}
		f.mu.Unlock()
		// The session token stays here, and so does the cookie that carries it.
		delete(grant, "session_token")
		delete(grant, "set_cookie")
		answer(w, res.status, grant)
		return
	}
	w.Header().Set("Content-Type", res.mediaType)
	w.WriteHeader(res.status)
	// A write fails when the client has gone; there is nobody left to tell.
	_, _ = w.Write(res.body)
}
