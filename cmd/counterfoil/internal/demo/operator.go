package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/counterfoil/counterfoil/internal/problem"
	"github.com/counterfoil/counterfoil/verify"
)

// operatorRoutes are what an operator does, here with buttons on the page. The
// page's server does it with its API key, as a backend would.
func (f *Front) operatorRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /demo/state", f.state)
	mux.HandleFunc("POST /demo/authority", f.turn)
	mux.HandleFunc("GET /demo/users/{id}", func(w http.ResponseWriter, r *http.Request) {
		f.pass(w, r, http.MethodGet, userPath(r), nil)
	})
	mux.Handle("POST /demo/users/{id}/roles", began(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Roles []string `json:"roles"`
		}
		if !read(w, r, &in) {
			return
		}
		if in.Roles == nil {
			in.Roles = []string{}
		}
		f.pass(w, r, http.MethodPatch, userPath(r), in)
	})))
}

func userPath(r *http.Request) string { return "/v1/users/" + url.PathEscape(r.PathValue("id")) }

// sessionCookie is the name that the protocol gives it.
const sessionCookie = "__Host-counterfoil"

// part is one of the three processes as the page shows it.
type part struct {
	PID     int    `json:"pid"` // 0: not running
	Address string `json:"address"`
}

type state struct {
	Page      part   `json:"page"`
	Orders    part   `json:"orders"`
	Authority part   `json:"authority"`
	Session   bool   `json:"session"` // the browser sent a session cookie, which script cannot see
	Phone     string `json:"phone"`   // subject of the second device; empty: there is none
}

func (f *Front) state(w http.ResponseWriter, r *http.Request) {
	own, err := url.Parse(f.Issuer)
	if err != nil {
		unreachable(w)
		return
	}
	answer(w, http.StatusOK, state{
		Page:      part{os.Getpid(), own.Host},
		Orders:    part{f.Orders.PID(), f.OrdersAddress},
		Authority: part{f.Switch.PID(), f.Switch.Address()},
		Session:   len(r.CookiesNamed(sessionCookie)) > 0,
		Phone:     f.phoneSubject(),
	})
}

func (f *Front) turn(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Running bool `json:"running"`
	}
	if !read(w, r, &in) {
		return
	}
	if err := f.Switch.Turn(r.Context(), in.Running); err != nil {
		f.Log.Error("the authority did not start", "error", err)
		problem.Write(w, problem.Problem{
			Status: http.StatusServiceUnavailable, Code: verify.CodeUnavailable, Detail: "The authority did not start; the terminal says why.",
		})
		return
	}
	f.transport.CloseIdleConnections()
	f.state(w, r)
}

// read decodes a small JSON body, or answers what is wrong with it.
func read(w http.ResponseWriter, r *http.Request, in any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(in); err != nil {
		problem.Write(w, problem.Problem{Status: http.StatusBadRequest, Code: verify.CodeInvalidRequest, Field: "body", Detail: "The body must be a small JSON object with the members that this address takes."})
		return false
	}
	return true
}

// pass asks the authority's backend API and hands its answer on.
func (f *Front) pass(w http.ResponseWriter, r *http.Request, method, path string, body any) {
	res, err := f.backend(r.Context(), method, path, body)
	if err != nil {
		unreachable(w)
		return
	}
	w.Header().Set("Content-Type", res.mediaType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(res.status)
	// A write fails when the client has gone; there is nobody left to tell.
	_, _ = w.Write(res.body)
}

type backendAnswer struct {
	status    int
	mediaType string
	body      []byte
}

func (f *Front) backend(ctx context.Context, method, path string, body any) (*backendAnswer, error) {
	var sent bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&sent).Encode(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+f.Switch.Address()+path, &sent)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+f.APIKey)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := f.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	read, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	return &backendAnswer{res.StatusCode, res.Header.Get("Content-Type"), read}, nil
}
