package httpapi

import (
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// inputs is what a call takes, as the tags of its input type say:
//
//	path:"…" query:"…" form:"…" json:"…"   where a member comes from, and its name
//	required:"true"                        it cannot be left out, null or empty
//	null:"refused"                         null is not as if it were left out
//	enum:"a,b"                             the only values
//	doc:"…"                                what it is, for the document
type inputs struct {
	path, query, form, body map[string]input
	names                   []string // in the order of the type
}

type input struct {
	index    []int
	kind     reflect.Type
	required bool
	notNull  bool
	enum     []string
	doc      string
}

func inputsOf(t reflect.Type) *inputs {
	in := &inputs{path: map[string]input{}, query: map[string]input{}, form: map[string]input{}, body: map[string]input{}}
	for _, f := range reflect.VisibleFields(t) {
		field := input{index: f.Index, kind: f.Type, required: f.Tag.Get("required") == "true", notNull: f.Tag.Get("null") == "refused", doc: f.Tag.Get("doc")}
		if enum := f.Tag.Get("enum"); enum != "" {
			field.enum = strings.Split(enum, ",")
		}
		for place, fields := range map[string]map[string]input{"path": in.path, "query": in.query, "form": in.form, "json": in.body} {
			if name, _, _ := strings.Cut(f.Tag.Get(place), ","); name != "" {
				fields[name] = field
				in.names = append(in.names, name)
			}
		}
	}
	return in
}

// has reports whether a path such as "amr[1]" or "device.ip" begins with the
// name of something that the call takes.
func (in *inputs) has(field string) bool {
	name := field
	if i := strings.IndexAny(field, ".["); i >= 0 {
		name = field[:i]
	}
	return name == "body" || name == "query" || slices.Contains(in.names, name)
}

// decodeText reads query or form parameters. None may come twice.
func (in *inputs) decodeText(fields map[string]input, values url.Values, into reflect.Value, lenient bool) error {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		field, ok := fields[name]
		if !ok {
			if lenient {
				continue
			}
			return bad("query", "has the parameter "+quoted(name)+", which is not known here; "+listed(fields))
		}
		if len(values[name]) > 1 {
			return bad(name, "is given more than once")
		}
		if err := field.setText(name, values[name][0], into.FieldByIndex(field.index)); err != nil {
			return err
		}
	}
	return in.complete(fields, into)
}

func (f *input) setText(name, text string, v reflect.Value) error {
	_, secret := v.Interface().(password) // garbage in it is not the form's fault
	if !secret && (!utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl)) {
		return bad(name, "must be UTF-8 without control characters")
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
		return f.check(name, v)
	case reflect.Int:
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return bad(name, "must be a whole number")
		}
		v.SetInt(n)
		if n == 0 {
			v.SetInt(-1) // given, and out of every range
		}
		return nil
	}
	panic("httpapi: a parameter of type " + v.Type().String())
}

// complete finds what is required and missing.
func (in *inputs) complete(fields map[string]input, into reflect.Value) error {
	for _, name := range in.names {
		if field, ok := fields[name]; ok && field.required && into.FieldByIndex(field.index).IsZero() {
			return bad(name, "is required")
		}
	}
	return nil
}

func (f *input) check(path string, v reflect.Value) error {
	if len(f.enum) == 0 || slices.Contains(f.enum, v.String()) {
		return nil
	}
	return bad(path, "must be one of "+strings.Join(f.enum, ", "))
}

func listed(fields map[string]input) string {
	if len(fields) == 0 {
		return "there are none"
	}
	return "there are " + strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
}

// quoted makes a name that a client made up fit to be sent back and logged.
func quoted(name string) string {
	const most = 40
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "") + "…"
	}
	return fmt.Sprintf("%q", name)
}
