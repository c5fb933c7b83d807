package relay

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/problem"
	"github.com/counterfoil/counterfoil/internal/strictjson"
	"github.com/counterfoil/counterfoil/verify"
)

// keysMaxAge is how long others may keep the documents, as at the authority.
const keysMaxAge = 5 * time.Minute

func (r *Relay) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+feedPath, r.serveFeed)
	mux.HandleFunc("GET "+clockPath, r.serveClock)
	mux.HandleFunc("GET "+jwksPath, r.serveKeys)
	mux.HandleFunc("GET "+discoveryPath, r.serveDiscovery)
	if u, err := url.Parse(r.issuer); err == nil && u.EscapedPath() != "" {
		// RFC 8414 section 3.1 puts the issuer's path behind the well-known one.
		mux.HandleFunc("GET "+discoveryPath+"/{path...}", r.serveDiscovery)
	}
	mux.HandleFunc("POST "+introspectPath, r.forward)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { ok(w) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, req *http.Request) {
		if !r.Ready() {
			verify.WriteError(w, req, verify.ErrUnavailable)
			return
		}
		ok(w)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem.Write(w, problem.Problem{Status: http.StatusNotFound, Code: "not_found", Detail: "A relay has no such resource: ask the authority."})
	})
	return mux
}

func ok(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write([]byte("{\"status\":\"ok\"}\n")) // fails when the client has gone
}

// serveFeed is the feed, until the reader's API key is good no more.
func (r *Relay) serveFeed(w http.ResponseWriter, req *http.Request) {
	hash, authorize, err := credential(req)
	if err == nil {
		_, err = r.readers.check(req.Context(), hash, authorize)
	}
	if err == nil && !r.Ready() {
		err = verify.ErrUnavailable
	}
	if err != nil {
		verify.WriteError(w, req, err)
		return
	}
	ctx, end := r.readers.follow(req.Context(), hash, authorize)
	defer end()
	r.server.ServeHTTP(w, req.WithContext(ctx))
}

// serveClock is the clock of this relay's beats. It also tells relays below
// how old the answer about their key is.
func (r *Relay) serveClock(w http.ResponseWriter, req *http.Request) {
	hash, authorize, err := credential(req)
	var age time.Duration
	if err == nil {
		age, err = r.readers.check(req.Context(), hash, authorize)
	}
	if err != nil {
		verify.WriteError(w, req, err)
		return
	}
	r.counters.noteLag(req)
	w.Header().Set(keyAgeHeader, strconv.FormatInt(roundUp(age), 10))
	r.server.ServeClock(w, req)
}

// roundUp is in seconds.
func roundUp(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// serveKeys is the key set, without keys that were revoked since. Keys of kinds
// that this version does not know are passed on.
func (r *Relay) serveKeys(w http.ResponseWriter, req *http.Request) {
	k := r.hub.keys.Load()
	if k == nil || !r.verifier.Ready() {
		verify.WriteError(w, req, verify.ErrUnavailable)
		return
	}
	table := r.hub.table.Load()
	document, left, err := withoutKeys(k.Document, table.KeyRevoked)
	if err == nil && left == 0 {
		err = verify.ErrUnavailable
	}
	if err != nil {
		verify.WriteError(w, req, err)
		return
	}
	r.serveDocument(w, "application/jwk-set+json", document, k.Fetched)
}

// serveDiscovery is the authority's document.
func (r *Relay) serveDiscovery(w http.ResponseWriter, req *http.Request) {
	k := r.hub.keys.Load()
	if k == nil || len(k.Discovery) == 0 || !r.verifier.Ready() {
		verify.WriteError(w, req, verify.ErrUnavailable)
		return
	}
	r.serveDocument(w, "application/json", k.Discovery, k.Fetched)
}

// serveDocument says how old the document is, as a cache does (RFC 9111), so
// that keys are not trusted longer for each relay that they pass.
func (r *Relay) serveDocument(w http.ResponseWriter, mediaType string, document []byte, fetched time.Time) {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(document)))
	h.Set("Cache-Control", "public, max-age="+strconv.FormatInt(int64(keysMaxAge/time.Second), 10))
	h.Set("Age", strconv.FormatInt(max(0, roundUp(time.Since(fetched))), 10))
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(document) // fails when the client has gone
}

// withoutKeys leaves keys out of a JWKS, and counts what is left.
func withoutKeys(document []byte, revoked func(kid string) bool) (rest []byte, left int, err error) {
	var out strings.Builder
	out.WriteByte('{')
	member := func(name string) {
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		out.Write(strictjson.AppendString(nil, name))
		out.WriteByte(':')
	}
	err = strictjson.Object(document, func(name string, value []byte) error {
		member(name)
		if name != "keys" {
			out.Write(value)
			return nil
		}
		out.WriteByte('[')
		err := strictjson.Array(value, func(key []byte) error {
			kid := ""
			err := strictjson.Object(key, func(name string, value []byte) (err error) {
				if name == "kid" {
					kid, err = strictjson.String(value)
				}
				return err
			})
			if err != nil || revoked(kid) {
				return err
			}
			if left++; left > 1 {
				out.WriteByte(',')
			}
			out.Write(key)
			return nil
		})
		out.WriteByte(']')
		return err
	})
	out.WriteByte('}')
	return []byte(out.String()), left, err
}
