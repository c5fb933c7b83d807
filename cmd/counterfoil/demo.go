package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/cmd/counterfoil/internal/demo"
	"github.com/counterfoil/counterfoil/httpapi"
)

func demoCommand() *command {
	return &command{
		name:  "demo",
		short: "See it work in the browser",
		long: `Starts an authority on SQLite, a service that verifies access tokens, each a
process of its own, and a page that shows both halves of a sign-in and what
each call costs. It needs no other program, listens on this machine only, and
leaves nothing behind unless --data is given.

SIGINT or SIGTERM (Ctrl-C) ends all three.`,
		examples: []string{"counterfoil demo", "counterfoil demo --token-lifetime 30s"},
		setup: func(a *app, f *flags) func(context.Context, []string) error {
			d := newDemoFlags(f)
			return func(ctx context.Context, args []string) error {
				// How the demo starts its own parts.
				switch {
				case len(args) == 1 && args[0] == partAuthority:
					return demo.Run(ctx, a.stdin, a.stdout, demoAuthority(a))
				case len(args) == 1 && args[0] == partOrders:
					log := newLogger(a.stderr, "text", slog.LevelInfo)
					return demo.Run(ctx, a.stdin, a.stdout, func(ctx context.Context, c demo.OrdersConfig, ready func(any) error) error {
						return demo.ServeOrders(ctx, c, log, ready)
					})
				}
				if err := noArgs(args); err != nil {
					return err
				}
				return d.run(ctx, a)
			}
		},
	}
}

const (
	partAuthority = "authority"
	partOrders    = "orders"

	defaultDemoListen = "127.0.0.1:8700"
)

type demoFlags struct {
	flags         *flags
	listen, data  textValue
	tokenLifetime durationValue
}

func newDemoFlags(f *flags) *demoFlags {
	d := &demoFlags{flags: f, listen: defaultDemoListen, tokenLifetime: durationValue(time.Minute)}
	f.add(&d.listen, "listen", "ADDRESS", "address and port of the page, on 127.0.0.1; when left out and taken, another port")
	f.add(&d.data, "data", "DIR", "keep users and sessions in this folder; in a temporary one when left out")
	f.add(&d.tokenLifetime, "token-lifetime", "DURATION", "of access tokens, 30s to 5m")
	return d
}

// run starts the three processes and waits.
func (d *demoFlags) run(ctx context.Context, a *app) (err error) {
	lifetime := time.Duration(d.tokenLifetime)
	if lifetime < 30*time.Second || lifetime > 5*time.Minute || lifetime%time.Second != 0 {
		return usagef("--token-lifetime %s: want whole seconds from 30s to 5m", &d.tokenLifetime)
	}
	listener, moved, err := d.open(ctx)
	if err != nil {
		return err
	}
	defer func() {
		// The server closes it too, which then is no failure.
		if closing := listener.Close(); closing != nil && !errors.Is(closing, net.ErrClosed) {
			err = errors.Join(err, closing)
		}
	}()
	folder, remove, err := d.folder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()

	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return err
	}
	// Browsers keep Secure cookies of plain http for the name localhost only.
	issuer := "http://localhost:" + port
	first := demoAuthorityConfig{Listen: "127.0.0.1:0", Issuer: issuer, Folder: folder, TokenLifetime: lifetime, First: true}
	var made demoAuthorityReady
	authority, err := demo.Start(ctx, filepath.Join(folder, "authority.log"), first, &made, "demo", partAuthority)
	if err != nil {
		return err
	}
	again := first
	again.Listen, again.First = made.Address, false
	sw := demo.NewSwitch(authority, made.Address, func(ctx context.Context) (*demo.Process, error) {
		return demo.Start(ctx, filepath.Join(folder, "authority.log"), again, &demoAuthorityReady{}, "demo", partAuthority)
	})
	defer func() { err = errors.Join(err, sw.Turn(context.WithoutCancel(ctx), false)) }()

	var serving demo.OrdersReady
	orders, err := demo.Start(ctx, filepath.Join(folder, "orders.log"),
		demo.OrdersConfig{Issuer: issuer, Authority: "http://" + made.Address, APIKey: made.OrdersKey}, &serving, "demo", partOrders)
	if err != nil {
		return err
	}
	defer orders.Stop()

	log := newLogger(a.stderr, "text", slog.LevelWarn)
	front := &demo.Front{
		Issuer: issuer, Orders: orders, OrdersAddress: serving.Address, Switch: sw, APIKey: made.PageKey, Log: log,
	}
	handler, err := front.Handler()
	if err != nil {
		return err
	}
	d.greet(a, issuer, folder, moved)
	server := httpapi.Server(handler)
	server.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err = <-failed:
		return fmt.Errorf("demo: %w", err)
	case <-orders.Done():
		if ctx.Err() == nil { // Ctrl-C in a terminal reaches it too
			err = fmt.Errorf("demo: the protected service ended by itself: %s", orders.LastLine())
		}
	case <-ctx.Done():
	}
	return errors.Join(err, server.Close())
}

// open takes the port. Without --listen a port that is taken is no reason not
// to start; moved tells.
func (d *demoFlags) open(ctx context.Context) (l net.Listener, moved bool, err error) {
	address := string(d.listen)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, false, usagef("--listen %q: want ADDRESS:PORT, such as %s", address, defaultDemoListen)
	}
	if host != "127.0.0.1" && host != "localhost" {
		return nil, false, usagef("--listen %s: the demo lets anyone who reaches it change roles and stop the authority: it listens on 127.0.0.1 only", address)
	}
	address = net.JoinHostPort("127.0.0.1", port)
	if d.flags.has("listen") {
		l, err = listen(ctx, address)
		return l, false, err
	}
	l, err = new(net.ListenConfig).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		moved = true
	}
	if err != nil {
		return nil, false, fmt.Errorf("the demo finds no port: %w", err)
	}
	return l, moved, nil
}

// folder is where the database lives; remove undoes what was made for it.
func (d *demoFlags) folder() (path string, remove func() error, err error) {
	if d.data != "" {
		if err := os.MkdirAll(string(d.data), 0o700); err != nil {
			return "", nil, fmt.Errorf("--data %s: %w", d.data, withoutPath(err))
		}
		return string(d.data), func() error { return nil }, nil
	}
	path, err = os.MkdirTemp("", "counterfoil-demo-")
	if err != nil {
		return "", nil, fmt.Errorf("make a temporary folder (or name one with --data): %w", err)
	}
	return path, func() error { return os.RemoveAll(path) }, nil
}

func (d *demoFlags) greet(a *app, issuer, folder string, moved bool) {
	p := newPrinter(a)
	p.printf("%s\n\n", p.paint(bold, "The Counterfoil demo is running."))
	rows := [][]cell{
		{styled(dim, "open"), styled(bold, issuer)},
		{styled(dim, "user"), text(demo.Ada.Email)},
		{styled(dim, "passphrase"), text(demo.Ada.Passphrase)},
		{styled(dim, "data"), text(folder)},
	}
	if d.data == "" {
		rows[3] = []cell{styled(dim, "data"), text(folder + " (gone when this stops)")}
	}
	if moved {
		rows[0] = append(rows[0], styled(warning, "port 8700 is taken; choose one with --listen"))
	}
	p.columns("  ", rows)
	p.printf("\nTry\n\n")
	steps := make([][]cell, len(demo.Steps))
	for i, step := range demo.Steps {
		steps[i] = []cell{styled(dim, strconv.Itoa(i+1)), text(step.Text)}
	}
	p.columns("  ", steps)
	p.printf("\nCtrl-C ends it.\n")
}

// demoAuthorityConfig is what the process of the authority is told.
type demoAuthorityConfig struct {
	Listen        string
	Issuer        string
	Folder        string
	TokenLifetime time.Duration
	First         bool // make the user and the API keys
}

// demoAuthorityReady is what it reports when it serves.
type demoAuthorityReady struct {
	Address   string
	PageKey   string // with First
	OrdersKey string // with First
}

// demoAuthority runs the authority as counterfoil serve does.
func demoAuthority(a *app) func(context.Context, demoAuthorityConfig, func(any) error) error {
	return func(ctx context.Context, c demoAuthorityConfig, ready func(any) error) (err error) {
		s := &serveSettings{
			pagesName: "Counterfoil demo",
			issuer:    c.Issuer, database: &database{path: filepath.Join(c.Folder, "demo.db")},
			listening: listening{connections: 1000, shutdown: 3 * time.Second, log: newLogger(a.stderr, "text", slog.LevelInfo)},
		}
		s.config = counterfoil.Config{Issuer: c.Issuer, Audiences: []string{demo.Audience}, TokenLifetime: c.TokenLifetime, Logger: s.log}
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Listen)
		if err != nil {
			return err
		}
		defer func() {
			if closing := listener.Close(); closing != nil && !errors.Is(closing, net.ErrClosed) {
				err = errors.Join(err, closing)
			}
		}()
		node, err := openNode(ctx, s)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, node.close()) }()
		told := demoAuthorityReady{Address: listener.Addr().String()}
		if c.First {
			if err := told.prepare(ctx, node); err != nil {
				return err
			}
		}
		if err := ready(told); err != nil {
			return err
		}
		return s.run(ctx, listener, node)
	}
}
