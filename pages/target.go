package pages

import (
	"net/url"
	"strings"
)

// maxTarget bounds a redirect target in bytes.
const maxTarget = 2048

// target is where next leads (SEC-101): one of our own pages by its name, a
// path of this origin, or an address in an origin that was allowed. Whatever
// browsers and servers could read in two ways is none.
func (s *site) target(next string) (string, bool) {
	if s.routes[next].named {
		return next, true
	}
	if localPath(next) {
		return next, true
	}
	for _, origin := range s.origins {
		rest, ok := strings.CutPrefix(next, origin)
		if ok && (rest == "" || localPath(rest)) {
			return next, true
		}
	}
	return "", false
}

// next is the target that the request names, or home.
func (v *visit) next() string {
	if target, ok := v.target(v.asked()); ok {
		return target
	}
	return v.home
}

// asked is what the request gives as next, good or not: pages hand it on, and
// the last one decides.
func (v *visit) asked() string {
	if v.form != nil {
		return v.form.Get("next")
	}
	return v.r.URL.Query().Get("next")
}

// localPath reports whether text is a path, with query and fragment perhaps,
// that every browser keeps on this origin.
func localPath(text string) bool {
	if len(text) > maxTarget || text == "" || text[0] != '/' {
		return false
	}
	for i := range len(text) {
		// Browsers take a backslash for a slash, and drop tabs and newlines.
		if c := text[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return false
		}
	}
	path := text
	if i := strings.IndexAny(text, "?#"); i >= 0 {
		path = text[:i]
	}
	// As servers may read it, which decode before they redirect on.
	for range 3 {
		if strings.Contains(path, "//") || strings.ContainsFunc(path, outOfPath) {
			return false
		}
		for segment := range strings.SplitSeq(path, "/") {
			if segment == "." || segment == ".." {
				return false
			}
		}
		decoded, err := url.PathUnescape(path)
		if err != nil {
			return false
		}
		if decoded == path {
			return true
		}
		path = decoded
	}
	return false // encoded again and again
}

func outOfPath(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' || r == '\uFFFD' }
