package counterfoil

import (
	"errors"
	"net/http"
	"sync/atomic"

	"github.com/counterfoil/counterfoil/verify"
)

// otherRefusal stands for codes that are none of ours, which hooks may make up.
const otherRefusal = "other"

// refusals counts by code what [Authority.Browser] has refused. It is never
// changed once it is made, so that nobody's errors make it grow.
type refusals map[string]*atomic.Uint64

func newRefusals() refusals {
	r := make(refusals)
	for _, code := range []string{
		verify.CodeTokenInvalid, verify.CodeTokenExpired, verify.CodeTokenStale, verify.CodeTokenRevoked, verify.CodeTokenTooOld,
		verify.CodeAudienceMismatch, verify.CodeInsufficientScope, verify.CodeInsufficientAuth,
		verify.CodeSessionRevoked, verify.CodeSessionExpired, verify.CodeSessionUnknown,
		verify.CodeCredentialMissing, verify.CodeCredentialAmbiguous, verify.CodeProofRequired,
		verify.CodeInvalidRequest, verify.CodeUnavailable, otherRefusal,
	} {
		r[code] = new(atomic.Uint64)
	}
	return r
}

func (r refusals) count(code string) {
	n := r[code]
	if n == nil {
		n = r[otherRefusal]
	}
	n.Add(1)
}

// countError counts what [verify.WriteError] makes of an error, whoever answers.
func (r refusals) countError(err error) {
	code := verify.CodeUnavailable
	var e *verify.Error
	if errors.As(err, &e) && e.Code != "" {
		code = e.Code
	}
	r.count(code)
}

// shown has the codes that were counted.
func (r refusals) shown() map[string]uint64 {
	shown := make(map[string]uint64)
	for code, n := range r {
		if n := n.Load(); n > 0 {
			shown[code] = n
		}
	}
	return shown
}

// refusing is a writer that counts the problem which is written to it.
type refusing struct {
	http.ResponseWriter
	refusals refusals
}

// Problem is told the code of a problem, and tells whoever else counts.
func (w *refusing) Problem(code string) {
	w.refusals.count(code)
	if observer, ok := w.ResponseWriter.(interface{ Problem(code string) }); ok {
		observer.Problem(code)
	}
}

// counted is a middleware whose refusals are counted. The handler behind it has
// the writer as it came, with all that it can do.
func (r refusals) counted(middleware func(http.Handler) http.Handler, next http.Handler) http.Handler {
	h := middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		next.ServeHTTP(w.(*refusing).ResponseWriter, req)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h.ServeHTTP(&refusing{w, r}, req)
	})
}
