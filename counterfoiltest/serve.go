package counterfoiltest

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"sync"
)

// serve lets a handler answer a request, and returns when the header of the
// answer is there. The body is what the handler writes, as it writes it.
// Closing the body ends the request, as a lost connection does.
func serve(handler http.Handler, r *http.Request) *http.Response {
	ctx, cancel := context.WithCancel(r.Context())
	in := r.Clone(ctx)
	in.RequestURI = r.URL.RequestURI()
	in.RemoteAddr = "192.0.2.1:1234"
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	reader, writer := io.Pipe()
	w := &streamed{header: make(http.Header), body: writer, ready: make(chan struct{})}
	go func() {
		handler.ServeHTTP(w, in)
		w.WriteHeader(http.StatusOK)
		_ = writer.Close() // the end of the answer; it cannot fail
	}()
	// A reader that went away must not hold the handler in a write.
	context.AfterFunc(ctx, func() { _ = reader.CloseWithError(context.Cause(ctx)) })
	<-w.ready
	return &http.Response{
		Status: strconv.Itoa(w.status) + " " + http.StatusText(w.status), StatusCode: w.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: &body{reader, cancel}, ContentLength: -1, Request: r,
	}
}

// streamed is the answer under way.
type streamed struct {
	header http.Header
	body   *io.PipeWriter

	once   sync.Once
	ready  chan struct{}
	status int
	sent   http.Header
}

func (w *streamed) Header() http.Header { return w.header }

func (w *streamed) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.ready)
	})
}

func (w *streamed) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// Flush implements [http.Flusher]: what was written is on its way already.
func (w *streamed) Flush() { w.WriteHeader(http.StatusOK) }

type body struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (b *body) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}
