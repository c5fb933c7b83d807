package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/problem"
	"github.com/counterfoil/counterfoil/verify"
)

const (
	maxForwards    = 256      // live checks under way at a time
	maxQuestion    = 16 << 10 // bytes; a token has 8 KiB at most
	maxAnswer      = 64 << 10
	forwardTimeout = 5 * time.Second
	viaRelay       = "1.1 counterfoil-relay"
)

// forward has the authority answer a live check. Nothing is kept: whoever asks
// wants to know how it is now. When nobody can be asked, that is the answer.
func (r *Relay) forward(w http.ResponseWriter, req *http.Request) {
	if _, err := bearer(req); err != nil {
		verify.WriteError(w, req, err)
		return
	}
	if strings.Count(strings.Join(req.Header.Values("Via"), ","), viaRelay) >= deepest {
		problem.Write(w, problem.Problem{Status: http.StatusLoopDetected, Code: "loop_detected", Detail: "The question has passed too many relays: they follow one another in a circle."})
		return
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	default:
		r.counters.forwards[failed].Add(1)
		verify.WriteError(w, req, verify.ErrUnavailable)
		return
	}
	question, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxQuestion))
	if err != nil {
		status := http.StatusBadRequest
		if errors.As(err, new(*http.MaxBytesError)) {
			status = http.StatusRequestEntityTooLarge
		}
		problem.Write(w, problem.Problem{Status: status, Code: verify.CodeInvalidRequest, Field: "body", Detail: "The body could not be read, or is longer than a token."})
		return
	}
	status, header, answer, err := r.ask(req, question)
	if err != nil {
		r.counters.forwards[failed].Add(1)
		r.log.Debug("a live check could not be forwarded", "error", err)
		verify.WriteError(w, req, verify.ErrUnavailable)
		return
	}
	r.counters.forwards[outcome(status)].Add(1)
	h := w.Header()
	for _, name := range [...]string{"Content-Type", "Retry-After", "WWW-Authenticate"} {
		if v := header.Values(name); len(v) > 0 {
			h[name] = v
		}
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(answer) // fails when the client has gone
}

func (r *Relay) ask(req *http.Request, question []byte) (status int, header http.Header, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(req.Context(), forwardTimeout)
	defer cancel()
	out, err := http.NewRequestWithContext(ctx, http.MethodPost, at(r.up.bases[0], introspectPath).String(), bytes.NewReader(question))
	if err != nil {
		return 0, nil, nil, err
	}
	for _, name := range [...]string{"Authorization", "Content-Type", "Accept"} {
		if v := req.Header.Values(name); len(v) > 0 {
			out.Header[name] = v
		}
	}
	out.Header["Via"] = append(req.Header.Values("Via"), viaRelay)
	res, err := r.up.RoundTrip(out)
	if err != nil {
		return 0, nil, nil, err
	}
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err = errors.Join(err, res.Body.Close()); err == nil && len(answer) > maxAnswer {
		err = errors.New("the answer is too long")
	}
	return res.StatusCode, res.Header, answer, err
}
