package httpapi_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// document is the OpenAPI document, read as a client would.
type document struct {
	OpenAPI    string                                    `json:"openapi"`
	Paths      map[string]map[string]documentedOperation `json:"paths"`
	Components struct {
		Schemas         map[string]schema             `json:"schemas"`
		Responses       map[string]documentedResponse `json:"responses"`
		SecuritySchemes map[string]any                `json:"securitySchemes"`
	} `json:"components"`
}

type documentedOperation struct {
	OperationID string                        `json:"operationId"`
	Summary     string                        `json:"summary"`
	Responses   map[string]documentedResponse `json:"responses"`
	Security    []map[string][]string         `json:"security"`
	Parameters  []struct {
		Name, In string
		Required bool
	} `json:"parameters"`
	RequestBody *struct {
		Content map[string]struct{ Schema schema } `json:"content"`
	} `json:"requestBody"`
}

type documentedResponse struct {
	Ref     string                             `json:"$ref"`
	Content map[string]struct{ Schema schema } `json:"content"`
}

type schema struct {
	Ref        string            `json:"$ref"`
	Type       any               `json:"type"`
	Properties map[string]schema `json:"properties"`
	Required   []string          `json:"required"`
	Additional *bool             `json:"additionalProperties"`
	Items      *schema           `json:"items"`
	Enum       []string          `json:"enum"`
	AllOf      []schema          `json:"allOf"`
	Minimum    *int64            `json:"minimum"`
}

func readDocument(t testing.TB, h http.Handler) *document {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/openapi.json", nil))
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("openapi.json: %d %s", w.Code, w.Body)
	}
	var d document
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	for _, methods := range d.Paths {
		for _, op := range methods {
			for status, response := range op.Responses {
				if ref, ok := strings.CutPrefix(response.Ref, "#/components/responses/"); ok {
					if op.Responses[status], ok = d.Components.Responses[ref]; !ok {
						t.Fatalf("nothing is called %s", ref)
					}
				}
			}
		}
	}
	return &d
}

var parameter = regexp.MustCompile(`\{[a-z]+\}`)

// operation finds the operation of a request, fixed paths first.
func (d *document) operation(method, path string) (documentedOperation, bool) {
	if method == "HEAD" {
		method = "GET"
	}
	patterns := slices.SortedFunc(maps.Keys(d.Paths), func(a, b string) int {
		return strings.Count(a, "{") - strings.Count(b, "{")
	})
	for _, p := range patterns {
		re := parameter.ReplaceAllString(regexp.QuoteMeta(p), "")
		re = regexp.MustCompile(`\\\{[a-z]+\\\}`).ReplaceAllString(re, "[^/]+")
		if regexp.MustCompile("^" + re + "$").MatchString(path) {
			op, ok := d.Paths[p][strings.ToLower(method)]
			return op, ok
		}
	}
	return documentedOperation{}, false
}

// check holds an answer against the document: status, media type, every member.
func (d *document) check(method, path string, w *answer) error {
	op, ok := d.operation(method, path)
	if !ok {
		return fmt.Errorf("there is no %s %s", method, path)
	}
	response, ok := op.Responses[strconv.Itoa(w.Code)]
	if !ok {
		return fmt.Errorf("status %d is not documented", w.Code)
	}
	if len(response.Content) == 0 {
		if w.Body.Len() > 0 {
			return fmt.Errorf("a body where none is documented")
		}
		return nil
	}
	media, _, err := mime.ParseMediaType(w.Header().Get("Content-Type"))
	if err != nil {
		return err
	}
	content, ok := response.Content[media]
	if !ok {
		return fmt.Errorf("media type %s is not documented", media)
	}
	if method == "HEAD" || media == "text/event-stream" {
		return nil
	}
	return d.valid("answer", content.Schema, w.json)
}

// valid is a small validator that takes no member which is not described.
func (d *document) valid(at string, s schema, v any) error {
	if s.Ref != "" {
		return d.valid(at, d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")], v)
	}
	if s.AllOf != nil {
		if err := d.valid(at, s.AllOf[0], v); err != nil {
			return err
		}
		code, _ := v.(map[string]any)["code"].(string)
		if enum := s.AllOf[1].Properties["code"].Enum; !slices.Contains(enum, code) {
			return fmt.Errorf("code %q is not among %v", code, enum)
		}
		return nil
	}
	kinds := fmt.Sprint(s.Type)
	switch v := v.(type) {
	case map[string]any:
		if kinds != "object" && kinds != "[object null]" {
			return fmt.Errorf("%s: an object, want %s", at, kinds)
		}
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				return fmt.Errorf("%s: %s is missing", at, name)
			}
		}
		for name, member := range v {
			described, ok := s.Properties[name]
			if !ok {
				if s.Additional != nil && *s.Additional {
					continue
				}
				return fmt.Errorf("%s: %s is not described", at, name)
			}
			if err := d.valid(at+"."+name, described, member); err != nil {
				return err
			}
		}
	case []any:
		if kinds != "array" {
			return fmt.Errorf("%s: an array, want %s", at, kinds)
		}
		for i, e := range v {
			if err := d.valid(fmt.Sprintf("%s[%d]", at, i), *s.Items, e); err != nil {
				return err
			}
		}
	case string:
		if kinds != "string" || s.Enum != nil && !slices.Contains(s.Enum, v) {
			return fmt.Errorf("%s: %q, want %s %v", at, v, kinds, s.Enum)
		}
	case nil:
		if kinds != "[object null]" {
			return fmt.Errorf("%s: null, want %s", at, kinds)
		}
	case bool:
		if kinds != "boolean" {
			return fmt.Errorf("%s: a boolean, want %s", at, kinds)
		}
	case json.Number:
		if kinds == "number" {
			return nil
		}
		n, err := v.Int64()
		if kinds != "integer" || err != nil || s.Minimum != nil && n < *s.Minimum {
			return fmt.Errorf("%s: %s, want %s", at, v, kinds)
		}
	default:
		return fmt.Errorf("%s: %v, want %s", at, v, kinds)
	}
	return nil
}
