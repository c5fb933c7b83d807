package httpapi

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// handler finds the route of a request. It is no [http.ServeMux], since its
// answers to an unknown path or method are problems too, it never redirects
// (a POST would lose its body, and a secret sent to a wrong path would be
// sent twice), and it takes ids that contain an escaped slash.
type handler struct {
	api      *api
	fixed    map[string]*resource // by path
	patterns []*resource
}

// resource is a path with its methods.
type resource struct {
	path     string
	segments []string
	methods  map[string]http.Handler // HEAD is GET
	allow    string
	sharing  sharing
	cookie   bool
}

func newHandler(a *api, routes []route) http.Handler {
	h := &handler{api: a, fixed: make(map[string]*resource)}
	for i := range routes {
		h.add(&routes[i])
	}
	return a.observe(h)
}

func (h *handler) add(r *route) {
	r.check()
	at := h.fixed[r.path]
	if at == nil {
		if i := slices.IndexFunc(h.patterns, func(p *resource) bool { return p.path == r.path }); i >= 0 {
			at = h.patterns[i]
		}
	}
	if at == nil {
		at = &resource{path: r.path, segments: strings.Split(r.path, "/"), methods: make(map[string]http.Handler)}
		if len(parameters(r.path)) == 0 {
			h.fixed[r.path] = at
		} else {
			h.patterns = append(h.patterns, at)
		}
	}
	if at.methods[r.method] != nil {
		panic("httpapi: two routes for " + r.method + " " + r.path)
	}
	at.methods[r.method] = h.api.endpoint(r)
	at.sharing = max(at.sharing, r.sharing)
	at.cookie = at.cookie || r.cookie
	methods := slices.Collect(maps.Keys(at.methods))
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	methods = append(methods, http.MethodOptions)
	slices.Sort(methods)
	at.allow = strings.Join(methods, ", ")
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.api.secure(w.Header())
	at, values := h.find(r.URL)
	if at == nil {
		h.api.fail(w, r, nil, errNoRoute)
		return
	}
	note(w, at.path)
	h.api.share(w, r, at)
	if r.Method == http.MethodOptions {
		w.Header().Set("Allow", at.allow)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	serve, ok := at.methods[method]
	if !ok {
		w.Header().Set("Allow", at.allow)
		h.api.fail(w, r, nil, errMethod)
		return
	}
	if at.cookie {
		if err := h.api.checkOrigin(r); err != nil {
			h.api.fail(w, r, nil, err)
			return
		}
	}
	for name, value := range values {
		r.SetPathValue(name, value)
	}
	serve.ServeHTTP(w, r)
}

// find matches the path as it was sent, so that an escaped slash belongs to
// its segment, and returns the values of the parameters.
func (h *handler) find(u *url.URL) (*resource, map[string]string) {
	path := u.EscapedPath()
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	if at := h.fixed[path]; at != nil {
		return at, nil
	}
	segments := strings.Split(path, "/")
	for _, at := range h.patterns {
		if values := at.match(segments); values != nil {
			return at, values
		}
	}
	return nil, nil
}

func (at *resource) match(segments []string) map[string]string {
	if len(segments) != len(at.segments) {
		return nil
	}
	values := make(map[string]string)
	for i, want := range at.segments {
		got := segments[i]
		name, ok := parameter(want)
		if !ok {
			if got != want {
				return nil
			}
			continue
		}
		value, err := url.PathUnescape(got)
		if err != nil || value == "" {
			return nil
		}
		values[name] = value
	}
	return values
}
