// Chat is a service whose connections stay open: server-sent events that end
// with the session that opened them.
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

	"github.com/counterfoil/counterfoil/verify"
)

func main() {
	listen := flag.String("listen", "localhost:8082", "address to listen on")
	issuer := flag.String("issuer", os.Getenv("COUNTERFOIL_ISSUER"), "the authority's public URL: the iss of the tokens [COUNTERFOIL_ISSUER]")
	authority := flag.String("authority", os.Getenv("COUNTERFOIL_AUTHORITY"), "its private address, where that is another [COUNTERFOIL_AUTHORITY]")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, *listen, verify.Config{
		Issuer:    *issuer,
		Audience:  "chat",
		Authority: *authority,
		APIKey:    os.Getenv("COUNTERFOIL_API_KEY"), // scope verify: for the feed of revocations
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "chat:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen string, config verify.Config) error {
	v, err := verify.New(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }() // it ends the feed, which cannot fail
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: newRoom().routes(v), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx }, // streams end with the program
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	}()
	fmt.Printf("chat on http://%s\n", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}
