// Command server is what stands behind the single-page application of
// examples/spa: the authority, the users, and one protected service, in one
// process. See README.md above it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/counterfoil/counterfoil/httpapi"
)

func main() {
	listen := flag.String("listen", "localhost:8080", "address to listen on")
	public := flag.String("public", "", "where browsers find it, when something stands in front: http://localhost:5173")
	built := flag.String("built", "", "folder of the built pages (npm run build makes dist); without it, only the calls are served")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *public, *built); err != nil {
		fmt.Fprintln(os.Stderr, "spa:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen, public, built string) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }() // the server closes it too
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	address := fmt.Sprintf("http://%s:%d", host, listener.Addr().(*net.TCPAddr).Port)
	if public == "" {
		public = address
	}
	app, err := newApp(ctx, public, time.Now)
	if err != nil {
		return err
	}

	server := httpapi.Server(app.routes(built)) // net/http with sane limits
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done() // pages that watch their session are let go with it
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	}()
	fmt.Println("open", address)
	if err = server.Serve(listener); errors.Is(err, http.ErrServerClosed) {
		err = <-stopped
	}
	return errors.Join(err, app.auth.Close())
}
