package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// password is a secret that a client sends. It redacts itself.
type password string

const redactedText = "[redacted]"

func (password) String() string               { return redactedText }
func (password) GoString() string             { return redactedText }
func (password) LogValue() slog.Value         { return slog.StringValue(redactedText) }
func (password) MarshalText() ([]byte, error) { return []byte(redactedText), nil }

// unixTime is a time in Unix seconds.
type unixTime int64

const lastUnixTime = 253402300799 // the end of the year 9999

func (t *unixTime) time() time.Time {
	if t == nil {
		return time.Time{}
	}
	return time.Unix(int64(*t), 0)
}

func (t unixTime) check() string {
	if t < 0 || t > lastUnixTime {
		return "must be a time in Unix seconds"
	}
	return ""
}

// seconds is a duration in whole seconds, at least one.
type seconds int64

const mostSeconds = 10 * 366 * 24 * 3600

func (s *seconds) duration() time.Duration {
	if s == nil {
		return 0
	}
	return time.Duration(*s) * time.Second
}

func (s seconds) check() string {
	if s < 1 || s > mostSeconds {
		return "must be a number of seconds, at least 1"
	}
	return ""
}

// epoch is what GET /users/{id}/epoch answered.
type epoch int64

func (e epoch) check() string {
	if e < 1 {
		return "must be the epoch that GET /users/{id}/epoch answered"
	}
	return ""
}

// change is a member of a PATCH: absent leaves what is there, null resets it.
type change[T any] struct {
	given bool
	value *T // nil: null
}

func (c *change[T]) decode(path string, text []byte) error {
	c.given = true
	if isNull(text) {
		return nil
	}
	c.value = new(T)
	return decodeValue(path, text, reflect.ValueOf(c.value).Elem())
}

func (c *change[T]) element() reflect.Type { return reflect.TypeFor[T]() }

// changer is a *change of any type.
type changer interface {
	decode(path string, text []byte) error
	element() reflect.Type
}

func isNull(text []byte) bool { return string(text) == "null" }

// decodeJSON reads a body. An empty one is {}.
func (in *inputs) decodeJSON(body []byte, into reflect.Value) error {
	if len(body) == 0 {
		return in.complete(in.body, into)
	}
	return decodeObject("", body, in, into)
}

func decodeObject(at string, text []byte, in *inputs, into reflect.Value) error {
	err := strictjson.Object(text, func(name string, value []byte) error {
		field, ok := in.body[name]
		if !ok {
			return bad(join(at, name), in.unknown(name))
		}
		path := join(at, name)
		v := into.FieldByIndex(field.index)
		if c, ok := v.Addr().Interface().(changer); ok {
			return c.decode(path, value)
		}
		if isNull(value) && field.notNull {
			return bad(path, "cannot be null; leave it out to leave it as it is")
		}
		if isNull(value) {
			return nil // as if absent: many languages write their nulls
		}
		if err := decodeValue(path, value, v); err != nil {
			return err
		}
		return field.check(path, v)
	})
	if syntax := (*strictjson.SyntaxError)(nil); errors.As(err, &syntax) {
		return bad("body", fmt.Sprintf("is not one JSON object as it should be: %s at byte %d", syntax.Problem, syntax.Offset))
	}
	if err != nil {
		return err
	}
	for _, name := range in.names {
		if field, ok := in.body[name]; ok && field.required && into.FieldByIndex(field.index).IsZero() {
			return bad(join(at, name), "is required")
		}
	}
	return nil
}

func (in *inputs) unknown(name string) string {
	if known := strictjson.FoldsTo(name); in.body[known].kind != nil {
		return "is not known here: spell it " + known
	}
	return "is not known here; " + listed(in.body)
}

// join makes the path of a member. A name that is no plain word is quoted.
func join(at, name string) string {
	plain := name != "" && len(name) <= 40 && strings.IndexFunc(name, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-')
	}) < 0
	switch {
	case !plain:
		return at + "[" + quoted(name) + "]"
	case at == "":
		return name
	}
	return at + "." + name
}

// decodeValue reads one JSON value of the type of v.
func decodeValue(path string, text []byte, v reflect.Value) error {
	wrong := func(want string) error {
		return bad(path, "must be "+want+", not "+kindOf(text))
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return decodeValue(path, text, v.Elem())
	case reflect.String:
		s, err := strictjson.String(text)
		if err != nil {
			return wrong("a string")
		}
		v.SetString(s)
	case reflect.Bool:
		b, err := strictjson.Bool(text)
		if err != nil {
			return wrong("true or false")
		}
		v.SetBool(b)
	case reflect.Int64:
		n, err := strictjson.Int(text)
		if err != nil {
			return wrong("a whole number")
		}
		v.SetInt(n)
		if c, ok := v.Interface().(interface{ check() string }); ok && c.check() != "" {
			return bad(path, c.check())
		}
	case reflect.Slice:
		return decodeSlice(path, text, v, wrong)
	case reflect.Map:
		return decodeMap(text, v, wrong)
	case reflect.Struct:
		if len(text) == 0 || text[0] != '{' {
			return wrong("an object")
		}
		return decodeObject(path, text, inputsOf(v.Type()), v)
	default:
		panic("httpapi: a member of type " + v.Type().String())
	}
	return nil
}

func decodeSlice(path string, text []byte, v reflect.Value, wrong func(string) error) error {
	if len(text) == 0 || text[0] != '[' {
		return wrong("an array")
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 4))
	return strictjson.Array(text, func(element []byte) error {
		e := reflect.New(v.Type().Elem()).Elem()
		if err := decodeValue(fmt.Sprintf("%s[%d]", path, v.Len()), element, e); err != nil {
			return err
		}
		v.Set(reflect.Append(v, e))
		return nil
	})
}

// decodeMap reads an object of the application's own making, which the strict
// reader has checked. Numbers stay as they were written.
func decodeMap(text []byte, v reflect.Value, wrong func(string) error) error {
	if len(text) == 0 || text[0] != '{' {
		return wrong("an object")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(v.Addr().Interface()); err != nil {
		return wrong("an object")
	}
	return nil
}

func kindOf(text []byte) string {
	if len(text) == 0 {
		return "nothing"
	}
	switch c := text[0]; {
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		return "a string"
	case c == 't', c == 'f':
		return "a boolean"
	case c == 'n':
		return "null"
	}
	return "such a number"
}
