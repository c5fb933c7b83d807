package strictjson

import (
	"strconv"
	"unicode/utf8"
)

// String reads value as one JSON string, such as Object hands to its callback.
func String(value []byte) (string, error) {
	var s scanner
	if err := s.open(value); err != nil {
		return "", err
	}
	out, err := s.string()
	if err != nil {
		return "", err
	}
	return out, s.close()
}

// Strings reads value as an array of strings. An empty array gives an empty,
// non-nil slice.
func Strings(value []byte) ([]string, error) {
	out := []string{}
	err := Array(value, func(element []byte) error {
		s, err := String(element)
		out = append(out, s)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Int reads value as a JSON integer: digits with at most a minus sign before
// them. A fraction, an exponent, -0, and what does not fit are refused.
func Int(value []byte) (int64, error) {
	digits := value
	if len(digits) > 0 && digits[0] == '-' {
		digits = digits[1:]
	}
	if len(digits) == 0 || len(value) > MaxNumber {
		return 0, &SyntaxError{0, "want an integer"}
	}
	for i, c := range digits {
		if c < '0' || '9' < c {
			return 0, &SyntaxError{len(value) - len(digits) + i, "want an integer"}
		}
	}
	if digits[0] == '0' && len(value) > 1 {
		return 0, &SyntaxError{0, "want an integer without a leading or negative zero"}
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return 0, &SyntaxError{0, "integer out of range"}
	}
	return n, nil
}

// Bool reads value as true or false.
func Bool(value []byte) (bool, error) {
	switch string(value) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, &SyntaxError{0, "want true or false"}
}

// AppendString appends s to dst as a JSON string with no more escapes than
// RFC 8259 asks for. Each byte that is not UTF-8 becomes U+FFFD, so the result
// is always valid; but two different strings may then look the same. Where s
// names somebody or something, refuse it with utf8.ValidString before.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(dst, s[done:i]...)
				dst = utf8.AppendRune(dst, utf8.RuneError)
				done = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[done:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			const digits = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
		i++
		done = i
	}
	dst = append(dst, s[done:]...)
	return append(dst, '"')
}
