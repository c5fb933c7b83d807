// Package strictjson reads and writes the JSON of tokens and key sets.
//
// It takes less than encoding/json does: one document has one meaning here,
// whatever reader comes after. Duplicate names, lone surrogates, invalid UTF-8,
// a byte order mark, trailing data and documents that are too deep or too wide
// are refused (RFC 8259, RFC 7493, RFC 7519 section 4). Sizes are the caller's
// to bound: every function is linear in its input, and no function here keeps
// more memory than a small multiple of it.
//
// All functions are safe for concurrent use.
package strictjson

import (
	"fmt"
	"unicode/utf8"
)

// Limits of one document.
const (
	MaxDepth   = 16 // nested arrays and objects, the outermost counted
	MaxMembers = 64 // members of one object
	MaxNumber  = 20 // characters of one number
)

// A SyntaxError says what is wrong with a document, and where.
type SyntaxError struct {
	Offset  int // bytes before the fault
	Problem string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("json: %s at byte %d", e.Problem, e.Offset)
}

// Object reads data as one JSON object, checks the whole of it, and only then
// calls each for every member of the outermost level, in order. The name is
// decoded, the value is the raw text of the member inside data, without white
// space around it. An error of each ends the call and is returned as it is.
// A nil each only checks.
func Object(data []byte, each func(name string, value []byte) error) error {
	var s scanner
	if err := s.open(data); err != nil {
		return err
	}
	var m members
	n, err := s.object(1, &m)
	if err != nil {
		return err
	}
	if err := s.close(); err != nil {
		return err
	}
	if each == nil {
		return nil
	}
	for i := range n {
		v := m.values[i]
		if err := each(m.names[i], data[v.from:v.to:v.to]); err != nil {
			return err
		}
	}
	return nil
}

// Array reads data as one JSON array, checks the whole of it, and only then
// calls each for every element, in order, with its raw text inside data.
func Array(data []byte, each func(value []byte) error) error {
	var s scanner
	if err := s.open(data); err != nil {
		return err
	}
	var values []span
	if err := s.array(1, &values); err != nil {
		return err
	}
	if err := s.close(); err != nil {
		return err
	}
	for _, v := range values {
		if err := each(data[v.from:v.to:v.to]); err != nil {
			return err
		}
	}
	return nil
}

// FoldsTo returns the name that readers which ignore case, encoding/json among
// them, take name for: lower case ASCII, with U+017F read as s and U+212A as k.
// A caller refuses a name that differs from a name it knows but folds to it;
// otherwise two readers of one document could see two different values.
func FoldsTo(name string) string {
	for i := 0; i < len(name); i++ {
		if c := name[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return foldFrom(name, i)
		}
	}
	return name
}

func foldFrom(name string, from int) string {
	folded := append(make([]byte, 0, len(name)), name[:from]...)
	for _, r := range name[from:] {
		switch {
		case 'A' <= r && r <= 'Z':
			r += 'a' - 'A'
		case r == '\u017F':
			r = 's'
		case r == '\u212A':
			r = 'k'
		}
		folded = utf8.AppendRune(folded, r)
	}
	return string(folded)
}
