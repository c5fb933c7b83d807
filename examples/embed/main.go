// Command embed is a small web application with its own users that keeps its
// sessions with Counterfoil, in its own database. Pages are plain HTML: no
// JavaScript, no second process. See README.md beside it.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	_ "modernc.org/sqlite"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/sqlstore"
)

func main() {
	listen := flag.String("listen", "localhost:8080", "address to listen on")
	file := flag.String("database", "embed.db", "SQLite file; the signing keys' seal lies beside it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *file); err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen, file string) (err error) {
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

	// The application's database. Counterfoil's tables go beside its own.
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(file))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	app, err := newApp(ctx, db, address, counterfoil.SealFile(file+".seal"))
	if err != nil {
		return err
	}

	server := httpapi.Server(app.routes()) // net/http with sane limits
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	}()
	fmt.Println("open", address)
	if err = server.Serve(listener); errors.Is(err, http.ErrServerClosed) {
		err = <-stopped // requests under way are finished: now the rest may close
	}
	return errors.Join(err, app.auth.Close())
}
