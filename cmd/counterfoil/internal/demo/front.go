package demo

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"

	"github.com/counterfoil/counterfoil/internal/problem"
	"github.com/counterfoil/counterfoil/verify"
)

// Front is the server that people open: the page, and behind the same host the
// authority under /v1/auth and the protected service under /api.
type Front struct {
	Issuer        string // its own public address
	User          User   // whom the sign-in form offers
	Orders        *Process
	OrdersAddress string // host and port of the protected service
	Switch        *Switch
	// APIKey is the operator's: it reads and changes users and starts sessions.
	APIKey string
	Log    *slog.Logger

	transport *http.Transport
	mu        sync.Mutex
	phone     phone
}

// Handler serves it all.
func (f *Front) Handler() (http.Handler, error) {
	public, err := url.Parse(f.Issuer)
	if err != nil {
		return nil, err
	}
	f.transport = &http.Transport{MaxIdleConnsPerHost: 16} // no proxy: all is on this machine
	mux := http.NewServeMux()
	if err := f.pages(mux); err != nil {
		return nil, err
	}
	authority := began(f.proxy(func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: f.Switch.Address()})
		r.SetXForwarded()
		r.Out.Host = r.In.Host // what the browser called: cross-site requests are told by it
	}))
	for _, path := range []string{"/v1/auth/", "/account/", "/.well-known/", "/oauth2/userinfo", "/openapi.json", "/healthz", "/readyz"} {
		mux.Handle(path, authority)
	}
	orders := f.proxy(func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: f.OrdersAddress})
		r.Out.Header.Del("Cookie") // the session is no business of a service
	})
	mux.Handle("/api/", http.StripPrefix("/api", orders))
	mux.HandleFunc("GET /api/watch", func(w http.ResponseWriter, r *http.Request) {
		if unbounded(w) == nil {
			http.StripPrefix("/api", orders).ServeHTTP(w, r)
		}
	})
	f.operatorRoutes(mux)
	f.phoneRoutes(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem.Write(w, problem.Problem{Status: http.StatusNotFound, Code: "not_found", Detail: "There is no such address."})
	})
	return ownHost(public, http.NewCrossOriginProtection().Handler(mux)), nil
}

// ownHost answers for the one host that the issuer names. Another name that
// leads here is somebody's who wants to read along (DNS rebinding); the
// address itself is sent on to the name, since cookies go by names.
func ownHost(public *url.URL, next http.Handler) http.Handler {
	_, port, _ := net.SplitHostPort(public.Host)
	address := net.JoinHostPort("127.0.0.1", port)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Host == public.Host:
			next.ServeHTTP(w, r)
		case r.Host == address && r.Method == http.MethodGet && r.URL.Path == "/":
			http.Redirect(w, r, public.String(), http.StatusFound)
		default:
			problem.Write(w, problem.Problem{
				Status: http.StatusMisdirectedRequest, Code: verify.CodeInvalidRequest, Field: "Host", Detail: "Host must be " + public.Host + ".",
			})
		}
	})
}

func (f *Front) proxy(rewrite func(*httputil.ProxyRequest)) http.Handler {
	return &httputil.ReverseProxy{
		Transport:    f.transport,
		Rewrite:      rewrite,
		ErrorLog:     slog.NewLogLogger(f.Log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { unreachable(w) },
	}
}

// unreachable is the answer while the authority is stopped: nothing that would
// sign anybody out.
func unreachable(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	problem.Write(w, problem.Problem{
		Status: http.StatusServiceUnavailable, Code: verify.CodeUnavailable, Detail: "The authority cannot be reached. Try again.",
	})
}
