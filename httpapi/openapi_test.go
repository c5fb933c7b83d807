package httpapi_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var everyMethod = []string{"GET", "POST", "PUT", "PATCH", "DELETE"}

// The document and the handlers say the same, both ways: what is documented
// is served, and what is served is documented. (That each answer is as
// documented is checked for every answer of every test.)
func TestDocumentIsTheHandlers(t *testing.T) {
	s := newSite(t)
	if s.doc.OpenAPI != "3.1.0" {
		t.Errorf("version %s", s.doc.OpenAPI)
	}
	names := map[string]bool{}
	n := 0
	for pattern, methods := range s.doc.Paths {
		path := parameter.ReplaceAllString(pattern, "0123456789abcdefghijklmn")
		options := s.do(ask{method: "OPTIONS " + path, any: true})
		allowed := strings.Split(options.Header().Get("Allow"), ", ")
		for _, method := range everyMethod {
			op, documented := methods[strings.ToLower(method)]
			a := s.do(ask{method: method + " " + path, any: true})
			// A fixed path such as /sessions/authenticate hides no pattern's method.
			if served := a.Code != 405 && (a.Code != 404 || a.text("detail") != "There is no such address."); served != documented {
				t.Errorf("%s %s: served %v, documented %v (%d)", method, pattern, served, documented, a.Code)
			}
			if documented != slices.Contains(allowed, method) {
				t.Errorf("%s %s: Allow is %v", method, pattern, allowed)
			}
			if !documented {
				continue
			}
			n++
			if op.OperationID == "" || names[op.OperationID] || op.Summary == "" || op.Security == nil {
				t.Errorf("%s %s: %+v", method, pattern, op)
			}
			names[op.OperationID] = true
			checkOperation(t, s, method+" "+pattern, op, pattern)
		}
	}
	if n != 46 {
		t.Errorf("%d operations, want 46: a call came or went without the tests", n)
	}
	if len(s.doc.Components.SecuritySchemes) != 4 {
		t.Errorf("%v", s.doc.Components.SecuritySchemes)
	}
}

func checkOperation(t *testing.T, s *site, name string, op documentedOperation, pattern string) {
	t.Helper()
	success := 0
	for status, response := range op.Responses {
		code, err := strconv.Atoi(status)
		if err != nil {
			t.Errorf("%s: status %s", name, status)
		}
		if code < 300 {
			success++
		}
		for media, content := range response.Content {
			if (code >= 400) != (media == "application/problem+json") {
				t.Errorf("%s: %d is %s", name, code, media)
			}
			resolve(t, s, name, content.Schema)
		}
	}
	if success != 1 {
		t.Errorf("%s: %d ways to succeed", name, success)
	}
	var inPath []string
	for _, p := range op.Parameters {
		if p.In == "path" {
			inPath = append(inPath, "{"+p.Name+"}")
			if !p.Required {
				t.Errorf("%s: the parameter %s is not required", name, p.Name)
			}
		}
	}
	if want := parameter.FindAllString(pattern, -1); !slices.Equal(inPath, want) {
		t.Errorf("%s: parameters %v", name, inPath)
	}
	for _, one := range op.Security {
		for scheme := range one {
			if s.doc.Components.SecuritySchemes[scheme] == nil {
				t.Errorf("%s: unknown scheme %s", name, scheme)
			}
		}
	}
	if op.RequestBody != nil {
		for _, content := range op.RequestBody.Content {
			resolve(t, s, name, content.Schema)
			if content.Schema.Additional == nil || *content.Schema.Additional {
				t.Errorf("%s: the body takes anything", name)
			}
		}
	}
}

// resolve finds references into nothing.
func resolve(t *testing.T, s *site, name string, sc schema) {
	t.Helper()
	if ref, ok := strings.CutPrefix(sc.Ref, "#/components/schemas/"); ok {
		if _, ok := s.doc.Components.Schemas[ref]; !ok {
			t.Errorf("%s: nothing is called %s", name, ref)
		}
	}
	for _, p := range sc.Properties {
		resolve(t, s, name, p)
	}
	for _, p := range sc.AllOf {
		resolve(t, s, name, p)
	}
	if sc.Items != nil {
		resolve(t, s, name, *sc.Items)
	}
}

// The validator of these tests would notice.
func TestValidatorNotices(t *testing.T) {
	s := newSite(t)
	session := s.doc.Components.Schemas["Session"]
	good := s.wants(s.backend("POST /v1/sessions", `{"subject":"u"}`), 201).object("session")
	if err := s.doc.valid("", session, any(good)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(map[string]any){
		"a new member":     func(m map[string]any) { m["secret"] = "x" },
		"a missing member": func(m map[string]any) { delete(m, "sid") },
		"a wrong type":     func(m map[string]any) { m["created_at"] = "now" },
		"a wrong value":    func(m map[string]any) { m["status"] = "gone" },
		"a null":           func(m map[string]any) { m["amr"] = nil },
	} {
		bad := maps.Clone(good)
		change(bad)
		if s.doc.valid("", session, any(bad)) == nil {
			t.Errorf("%s passes", name)
		}
	}
}

var update = flag.Bool("update", false, "write docs/openapi.json anew")

// The wire changes only where somebody sees it: docs/openapi.json is the
// document as published.
func TestPublishedDocument(t *testing.T) {
	s := newSite(t)
	w := newRecorder()
	s.handler.ServeHTTP(w, newRequest("GET", "/openapi.json"))
	var served bytes.Buffer
	if err := json.Indent(&served, w.Body.Bytes(), "", " "); err != nil {
		t.Fatal(err)
	}
	served.WriteByte('\n')
	const file = "../docs/openapi.json"
	if *update {
		if err := os.WriteFile(file, served.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	published, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(published, served.Bytes()) {
		t.Error("the API is not as docs/openapi.json says. If that is meant: go test ./httpapi -run TestPublishedDocument -update, and a line in CHANGELOG.md")
	}
}

// docs/http-api.md names each call, and none that there is not.
func TestProseNamesEveryCall(t *testing.T) {
	s := newSite(t)
	text, err := os.ReadFile("../docs/http-api.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, call := range regexp.MustCompile("`(GET|POST|PATCH|DELETE) (/[^` ?]*)").FindAllStringSubmatch(string(text), -1) {
		told[call[1]+" "+call[2]] = true
	}
	for path, methods := range s.doc.Paths {
		for method := range methods {
			call := strings.ToUpper(method) + " " + path
			if !told[call] {
				t.Errorf("%s is not in docs/http-api.md", call)
			}
			delete(told, call)
		}
	}
	for call := range told {
		t.Errorf("docs/http-api.md names %s, which is not served", call)
	}
	for _, code := range []string{"token_invalid", "invalid_request", "conflict", "rate_limited", "unavailable", "not_found", "internal", "invalid_credentials", "credential_missing", "credential_ambiguous", "session_revoked"} {
		if !strings.Contains(string(text), "`"+code+"`") {
			t.Errorf("docs/http-api.md does not tell of %s", code)
		}
	}
}
