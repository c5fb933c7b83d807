//go:build linux

package main

import "net/http"

// serveCeiling serves what net/http costs and nothing else: 11 bytes of JSON.
func serveCeiling(args []string) error {
	answer := []byte(`{"ok":true}`)
	return http.ListenAndServe(args[0], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer) // the client may have gone
	}))
}
