package httpapi

import (
	"net/http"
	"time"
)

// Server returns a server for h with limits on time and size, so that slow or
// endless requests do not hold connections: headers within 5 s and 16 KiB, a
// request within 15 s, an answer within 30 s of the end of its headers, idle
// connections closed after 2 min. A handler that streams lifts the limit of
// its own answer with [http.ResponseController]. The caller sets Addr,
// TLSConfig and ErrorLog.
func Server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
}
