// Command ssr is a small web application whose pages are rendered on the
// server. It has no JavaScript of its own and no sign-in of its own: the pages
// of the account are package pages. See README.md beside it.
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
	file := flag.String("database", "ssr.db", "SQLite file; the signing keys' seal lies beside it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *file); err != nil {
		fmt.Fprintln(os.Stderr, "ssr:", err)
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

	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(file))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	app, err := newApp(ctx, sqlstore.SQLite(db), counterfoil.Config{Issuer: address, Seal: counterfoil.SealFile(file + ".seal")})
	if err != nil {
		return err
	}
	if password, err := app.addLibrarian(ctx); err != nil {
		return errors.Join(err, app.auth.Close())
	} else if password != "" {
		fmt.Printf("the librarian is %s, with the password %s (told once)\n", librarian, password)
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
