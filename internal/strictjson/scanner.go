package strictjson

import (
	"strconv"
	"unicode/utf8"
)

type span struct{ from, to int }

// members is what object finds: decoded names, and the places of the values.
// It is an array so that it can live on the stack.
type members struct {
	names  [MaxMembers]string
	values [MaxMembers]span
}

// scanner walks one document.
type scanner struct {
	text string // a copy of the document: decoded names are cut from it
	at   int
}

func (s *scanner) open(data []byte) error {
	if !utf8.Valid(data) {
		return &SyntaxError{invalidAt(data), "invalid UTF-8"}
	}
	s.text = string(data)
	s.space()
	return nil
}

func (s *scanner) close() error {
	s.space()
	if s.at != len(s.text) {
		return s.fault("data after the end")
	}
	return nil
}

func (s *scanner) fault(problem string) error {
	return &SyntaxError{s.at, problem}
}

func (s *scanner) space() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// skip steps over c and tells whether it was there.
func (s *scanner) skip(c byte) bool {
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

// object reads an object at the given depth into m and returns the number of
// its members.
func (s *scanner) object(depth int, m *members) (int, error) {
	if depth > MaxDepth {
		return 0, s.fault("too deep")
	}
	if !s.skip('{') {
		return 0, s.fault("want an object")
	}
	s.space()
	if s.skip('}') {
		return 0, nil
	}
	for n := 0; ; n++ {
		if n == MaxMembers {
			return 0, s.fault("too many members")
		}
		s.space()
		from := s.at
		name, err := s.string()
		if err != nil {
			return 0, err
		}
		for _, other := range m.names[:n] {
			if other == name {
				s.at = from
				return 0, s.fault("duplicate name")
			}
		}
		m.names[n] = name
		s.space()
		if !s.skip(':') {
			return 0, s.fault("want a colon")
		}
		s.space()
		from = s.at
		if err := s.value(depth + 1); err != nil {
			return 0, err
		}
		m.values[n] = span{from, s.at}
		s.space()
		if s.skip(',') {
			continue
		}
		if !s.skip('}') {
			return 0, s.fault("want a comma or a closing brace")
		}
		return n + 1, nil
	}
}

// nested reads an object whose members nobody asks for.
func (s *scanner) nested(depth int) error {
	var m members
	_, err := s.object(depth, &m)
	return err
}

func (s *scanner) array(depth int, values *[]span) error {
	if depth > MaxDepth {
		return s.fault("too deep")
	}
	if !s.skip('[') {
		return s.fault("want an array")
	}
	s.space()
	if s.skip(']') {
		return nil
	}
	for {
		s.space()
		from := s.at
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if values != nil {
			*values = append(*values, span{from, s.at})
		}
		s.space()
		if s.skip(',') {
			continue
		}
		if !s.skip(']') {
			return s.fault("want a comma or a closing bracket")
		}
		return nil
	}
}

// value reads any value; depth counts for it if it is an array or an object.
func (s *scanner) value(depth int) error {
	if s.at == len(s.text) {
		return s.fault("unexpected end")
	}
	switch c := s.text[s.at]; {
	case c == '"':
		_, err := s.string()
		return err
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	case c == '{':
		return s.nested(depth)
	case c == '[':
		return s.array(depth, nil)
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	}
	return s.fault("want a value")
}

func (s *scanner) literal(word string) error {
	if len(s.text)-s.at < len(word) || s.text[s.at:s.at+len(word)] != word {
		return s.fault("want a value")
	}
	s.at += len(word)
	return nil
}

// number reads a number. One beyond the range of a 64-bit float is refused,
// since readers differ on what it means.
func (s *scanner) number() error {
	from := s.at
	s.skip('-')
	if !s.skip('0') && s.digits() == 0 {
		return s.fault("want a digit")
	}
	if s.skip('.') && s.digits() == 0 {
		return s.fault("want a digit")
	}
	exponent := s.skip('e') || s.skip('E')
	if exponent {
		if !s.skip('+') {
			s.skip('-')
		}
		if s.digits() == 0 {
			return s.fault("want a digit")
		}
	}
	text := s.text[from:s.at]
	if len(text) > MaxNumber {
		s.at = from
		return s.fault("number too long")
	}
	if exponent {
		if _, err := strconv.ParseFloat(text, 64); err != nil {
			s.at = from
			return s.fault("number out of range")
		}
	}
	return nil
}

func (s *scanner) digits() int {
	from := s.at
	for s.at < len(s.text) && '0' <= s.text[s.at] && s.text[s.at] <= '9' {
		s.at++
	}
	return s.at - from
}

// string reads a string and returns what it means. Only one with an escape in
// it costs an allocation.
func (s *scanner) string() (string, error) {
	if !s.skip('"') {
		return "", s.fault("want a string")
	}
	from := s.at
	for i := s.at; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '"':
			s.at = i + 1
			return s.text[from:i], nil
		case c == '\\':
			s.at = i
			return s.escaped(from)
		case c < ' ':
			s.at = i
			return "", s.fault("control character in a string")
		}
	}
	s.at = len(s.text)
	return "", s.fault("unexpected end")
}

// escaped reads the rest of a string from its first escape on.
func (s *scanner) escaped(from int) (string, error) {
	out := append(make([]byte, 0, 2*(s.at-from)+16), s.text[from:s.at]...)
	for s.at < len(s.text) {
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			return string(out), nil
		case c == '\\':
			r, err := s.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
		case c < ' ':
			return "", s.fault("control character in a string")
		default:
			out = append(out, c)
			s.at++
		}
	}
	return "", s.fault("unexpected end")
}

// escape reads one escape, or the two that make up a surrogate pair.
func (s *scanner) escape() (rune, error) {
	if s.at+1 >= len(s.text) {
		return 0, s.fault("unexpected end")
	}
	switch c := s.text[s.at+1]; c {
	case '"', '\\', '/':
		s.at += 2
		return rune(c), nil
	case 'b', 'f', 'n', 'r', 't':
		s.at += 2
		return rune(controls[c]), nil
	case 'u':
	default:
		return 0, s.fault("unknown escape")
	}
	high, ok := s.hex(s.at)
	if !ok {
		return 0, s.fault("want four hexadecimal digits")
	}
	switch {
	case high < 0xD800 || high > 0xDFFF:
		s.at += 6
		return high, nil
	case high < 0xDC00:
		if low, ok := s.hex(s.at + 6); ok && 0xDC00 <= low && low <= 0xDFFF {
			s.at += 12
			return 0x10000 + (high-0xD800)<<10 + (low - 0xDC00), nil
		}
	}
	return 0, s.fault("lone surrogate")
}

var controls = [...]byte{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// hex reads the escape \uXXXX at i.
func (s *scanner) hex(i int) (rune, bool) {
	if len(s.text)-i < 6 || s.text[i] != '\\' || s.text[i+1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range []byte(s.text[i+2 : i+6]) {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func invalidAt(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(data)
}
