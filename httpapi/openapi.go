package httpapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/counterfoil/counterfoil/internal/problem"
)

// openapi is the OpenAPI 3.1 document. It is made from the routes that are
// served, by the types that requests are decoded into and answers encoded from.
type openapi []byte

func (openapi) mediaType() string { return "application/json" }
func (o openapi) content() []byte { return o }

type object = map[string]any

// description is the document while it is made.
type description struct {
	schemas
	problems object // answers by name
}

// describeAPI describes WellKnown's own routes, and those of the other two
// handlers where they are mounted.
func describeAPI(a *api, own []route) openapi {
	routes := slices.Clone(own)
	if a.devicePrefix != "" {
		routes = append(routes, under(a.devicePrefix, deviceRoutes(a))...)
	}
	if a.backendPrefix != "" {
		routes = append(routes, under(a.backendPrefix, backendRoutes(a))...)
	}
	d := &description{schemas: schemas{}, problems: object{}}
	paths := object{}
	for i := range routes {
		r := &routes[i]
		item, _ := paths[r.path].(object)
		if item == nil {
			item = object{}
			paths[r.path] = item
		}
		item[strings.ToLower(r.method)] = d.operation(r)
	}
	d.schemas["Problem"] = problemSchema()
	document, err := json.Marshal(object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Counterfoil", "version": "1",
			"description": "Sessions that can be revoked, and access tokens that every service verifies by itself. Times are Unix seconds. Errors are problem+json (RFC 9457) with a code; tolerate new members in answers.",
		},
		"servers": []object{{"url": a.auth.Config().Issuer}},
		"paths":   paths,
		"components": object{
			"schemas": d.schemas, "responses": d.problems,
			"securitySchemes": object{
				"sessionToken":  object{"type": "http", "scheme": "bearer", "description": "A session token, cf_st_…"},
				"sessionCookie": object{"type": "apiKey", "in": "cookie", "name": "__Host-counterfoil", "description": "The session token in a cookie. Applications other than the default one append - and their client_id to the name."},
				"apiKey":        object{"type": "http", "scheme": "bearer", "description": "An API key, cf_sk_…, with the scope that the call names."},
				"accessToken":   object{"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "An access token (RFC 9068)."},
			},
		},
	})
	if err != nil {
		panic("httpapi: the OpenAPI document: " + err.Error())
	}
	return document
}

func (d *description) operation(r *route) object {
	op := object{
		"operationId": r.name, "summary": r.summary, "tags": []string{r.tag},
		"responses": d.responses(r), "security": security(r),
	}
	if r.detail != "" {
		op["description"] = r.detail
	}
	var params []object
	for _, place := range []struct {
		in     string
		fields map[string]input
	}{{"path", r.takes.path}, {"query", r.takes.query}} {
		for _, name := range r.takes.names {
			if f, ok := place.fields[name]; ok {
				params = append(params, object{
					"name": name, "in": place.in, "required": place.in == "path" || f.required,
					"schema": d.member(&f),
				})
			}
		}
	}
	if params != nil {
		op["parameters"] = params
	}
	if r.safe() {
		return op
	}
	fields, media := r.takes.body, "application/json"
	if r.form {
		fields, media = r.takes.form, "application/x-www-form-urlencoded"
	}
	if len(fields) > 0 {
		schema := d.request(fields)
		op["requestBody"] = object{"required": schema["required"] != nil, "content": object{media: object{"schema": schema}}}
	}
	return op
}

func security(r *route) []object {
	switch r.credential {
	case userSession:
		return []object{{"sessionToken": []string{}}, {"sessionCookie": []string{}}}
	case apiKey:
		return []object{{"apiKey": []string{r.scope}}}
	case accessToken:
		return []object{{"accessToken": []string{}}}
	}
	return []object{}
}

func (d *description) responses(r *route) object {
	success := object{"description": http.StatusText(r.status)}
	if r.out != reflect.TypeFor[none]() {
		media, schema := "application/json", d.of(r.out)
		switch r.out {
		case reflect.TypeFor[keySet]():
			media = keySet(nil).mediaType()
		case reflect.TypeFor[feedStream](), reflect.TypeFor[watchStream]():
			media = "text/event-stream"
		}
		success["content"] = object{media: object{"schema": schema}}
	}
	responses := object{strconv.Itoa(r.status): success}
	codes := map[int][]string{}
	for _, f := range r.problems() {
		codes[f.status] = append(codes[f.status], f.code)
	}
	for status, codes := range codes {
		responses[strconv.Itoa(status)] = d.problem(status, codes)
	}
	return responses
}

// problem names the answer with one status and certain codes, once.
func (d *description) problem(status int, codes []string) object {
	name := fmt.Sprintf("%d.%s", status, strings.Join(codes, "."))
	if d.problems[name] == nil {
		d.problems[name] = object{
			"description": strings.Join(codes, ", "),
			"content": object{problem.ContentType: object{"schema": object{
				"allOf": []object{{"$ref": "#/components/schemas/Problem"}, {"properties": object{"code": object{"enum": codes}}}},
			}}},
		}
	}
	return object{"$ref": "#/components/responses/" + name}
}

// schemas are the named types of the document.
type schemas map[string]object

// of describes a type that is written.
func (s schemas) of(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[openapi](), reflect.TypeFor[keySet]():
		return object{"type": "object", "additionalProperties": true}
	case reflect.TypeFor[jsonObject]():
		return object{"type": "object", "additionalProperties": true}
	case reflect.TypeFor[*jsonObject]():
		return object{"type": []any{"object", "null"}, "additionalProperties": true}
	case reflect.TypeFor[feedStream]():
		return object{"type": "string", "description": "Server-sent events: snapshot, live and beat."}
	case reflect.TypeFor[watchStream]():
		return object{"type": "string", "description": "Server-sent events: hello, stale and ended."}
	case reflect.TypeFor[feedClock]():
		return object{"type": "object", "required": []string{"node", "now"}, "properties": object{
			"node": object{"type": "string", "description": "The process whose clock it is."},
			"now":  object{"type": "number", "description": "Seconds, as in the beats of the same node."},
		}}
	case reflect.TypeFor[unixTime]():
		return object{"type": "integer", "minimum": 0, "description": "Unix seconds."}
	case reflect.TypeFor[seconds]():
		return object{"type": "integer", "minimum": 1}
	case reflect.TypeFor[epoch]():
		return object{"type": "integer", "minimum": 1}
	case reflect.TypeFor[password]():
		return object{"type": "string", "writeOnly": true}
	}
	if c, ok := reflect.New(t).Interface().(changer); ok {
		inner := s.of(c.element())
		inner["type"] = []any{inner["type"], "null"}
		return inner
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Slice:
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": true}
	case reflect.Struct:
		return s.named(t)
	}
	panic(fmt.Sprintf("httpapi: the document cannot describe %s", t))
}

// named describes a struct once, under its own name.
func (s schemas) named(t reflect.Type) object {
	name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
	ref := object{"$ref": "#/components/schemas/" + name}
	if s[name] != nil {
		return ref
	}
	if strings.HasSuffix(name, "Input") {
		in := inputsOf(t)
		s[name] = s.request(in.body)
		return ref
	}
	properties, required := object{}, []string{}
	s[name] = object{"type": "object", "properties": properties}
	for _, f := range reflect.VisibleFields(t) {
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == "" {
			continue
		}
		field := input{kind: f.Type, doc: f.Tag.Get("doc")}
		if enum := f.Tag.Get("enum"); enum != "" {
			field.enum = strings.Split(enum, ",")
		}
		properties[tag] = s.member(&field)
		if options != "omitempty" {
			required = append(required, tag)
		}
	}
	s[name]["required"] = required
	return ref
}

// request describes what a body may hold; it takes nothing else.
func (s schemas) request(fields map[string]input) object {
	properties, required := object{}, []string{}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		f := fields[name]
		properties[name] = s.member(&f)
		if f.required {
			required = append(required, name)
		}
	}
	schema := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		schema["required"] = required
	}
	return schema
}

func (s schemas) member(f *input) object {
	schema := s.of(f.kind)
	if f.enum != nil {
		schema["enum"] = f.enum
	}
	if f.doc != "" {
		schema["description"] = f.doc
	}
	if f.required && schema["type"] == "string" {
		schema["minLength"] = 1
	}
	return schema
}

func problemSchema() object {
	text := func(doc string) object { return object{"type": "string", "description": doc} }
	number := func(doc string) object { return object{"type": "integer", "description": doc} }
	return object{
		"type": "object", "required": []string{"status", "title", "code"},
		"properties": object{
			"status": number("The HTTP status."), "title": text("The same for every answer of a status."),
			"code":   text("What a client acts on; stable."),
			"detail": text("For a person: what is wrong and how to mend it."),
			"field":  text("The member, parameter or header that is at fault, as a path: device.ip, amr[1]."),
			"sid":    text("session_…: the session that ended."), "reason": text("session_revoked: why."),
			"ended_at": number("session_…: when, Unix seconds."), "scope": text("insufficient_scope: what is asked for."),
			"max_age":    number("insufficient_user_authentication: how many seconds ago the user may have proved who they are (RFC 9470)."),
			"acr_values": text("insufficient_user_authentication: what kinds of authentication will do, separated by spaces (RFC 9470)."),
		},
	}
}
