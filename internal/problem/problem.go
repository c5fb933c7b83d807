// Package problem writes the one form that errors take on the wire: RFC 9457
// application/problem+json with a stable code.
package problem

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// ContentType is the media type of RFC 9457.
const ContentType = "application/problem+json"

// Problem is one answer. Nothing in it may be a secret.
type Problem struct {
	Status int            // HTTP status; also a member of the body
	Code   string         // what a client acts on; stable
	Title  string         // the same for every answer of this code; default: the status's text
	Detail string         // for a person: what is wrong here and how to mend it
	Field  string         // the member, parameter or header that is at fault
	Extra  map[string]any // further members; they cannot replace those above
}

// Write answers with p. Headers that are set already stay, except those that
// describe the body; no cache keeps the answer. A writer with a method
// Problem(code string) is told the code, so that it can be counted.
func Write(w http.ResponseWriter, p Problem) {
	if observer, ok := w.(interface{ Problem(code string) }); ok {
		observer.Problem(p.Code)
	}
	body := make(map[string]any, len(p.Extra)+5)
	for name, value := range p.Extra {
		body[name] = value
	}
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	body["status"] = p.Status
	body["title"] = p.Title
	set(body, "code", p.Code)
	set(body, "detail", p.Detail)
	set(body, "field", p.Field)
	data, err := json.Marshal(body)
	if err != nil {
		// Extra holds what JSON cannot say. The answer stays a problem with its code.
		data = fmt.Appendf(nil, `{"code":%q,"status":%d}`, p.Code, p.Status)
	}
	data = append(data, '\n')
	h := w.Header()
	h.Set("Content-Type", ContentType)
	h.Set("Content-Length", strconv.Itoa(len(data)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Del("Content-Encoding")
	h.Del("ETag")
	h.Del("Last-Modified")
	w.WriteHeader(p.Status)
	// A write fails when the client has gone; there is nobody left to tell.
	_, _ = w.Write(data)
}

func set(body map[string]any, name, value string) {
	if value == "" {
		delete(body, name)
		return
	}
	body[name] = value
}
