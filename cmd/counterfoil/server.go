package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/internal/guard"
	"github.com/counterfoil/counterfoil/memstore"
	"github.com/counterfoil/counterfoil/pages"
)

// serve runs the server until ctx ends. The port is taken first: whatever is
// wrong, nothing is made before it is known that we are the one to serve.
func serve(ctx context.Context, a *app, s *serveSettings) (err error) {
	listener, err := listen(ctx, s.listen)
	if err != nil {
		return err
	}
	defer func() {
		// The server closes it too, which then is no failure.
		if closing := listener.Close(); closing != nil && !errors.Is(closing, net.ErrClosed) {
			err = errors.Join(err, closing)
		}
	}()
	if err := s.metrics.listen(ctx, s.log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.metrics.close()) }()
	if s.issuer == "" {
		s.issuer = "http://" + listener.Addr().String()
		s.config.Issuer = s.issuer
		s.log.Info("no --issuer given, and this is loopback", "issuer", s.issuer)
	}
	if err := s.checkTopology(); err != nil {
		return err
	}
	node, err := openNode(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.close()) }()
	if s.database == nil {
		if err := greet(ctx, a, node, s.pagesName != ""); err != nil {
			return err
		}
	}
	return s.run(ctx, listener, node)
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	return listenFor(ctx, "--listen", address)
}

func listenFor(ctx context.Context, flag, address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err == nil {
		return listener, nil
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s %s: the port is in use: stop what uses it, or choose another", flag, address)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%s %s: not permitted: ports below 1024 are the system's", flag, address)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return nil, fmt.Errorf("%s %s: %w", flag, address, err)
}

// node is what serves: the authority, its users, and where they are kept.
type node struct {
	auth     *counterfoil.Authority
	users    *directory.Directory
	database *database // nil: memory
}

// close flushes and closes, the authority first.
func (n *node) close() error {
	err := n.auth.Close()
	if n.database != nil {
		err = errors.Join(err, n.database.close())
	}
	return err
}

func openNode(ctx context.Context, s *serveSettings) (*node, error) {
	var users directory.Store
	n := &node{database: s.database}
	if s.database == nil {
		store := memstore.New()
		users = store.Users()
		s.config.Seal = counterfoil.SealSecrets(make([]byte, 32)) // nothing is at rest
		auth, err := counterfoil.New(ctx, store, s.config)
		if err != nil {
			return nil, flagError(err)
		}
		n.auth = auth
	} else {
		auth, err := openSealed(ctx, s)
		if errors.Is(err, errSealAppeared) {
			auth, err = openSealed(ctx, s) // with the other's seal
		}
		if err != nil {
			return nil, errors.Join(err, s.database.close())
		}
		n.auth, users = auth, s.database.whole().Users()
	}
	var err error
	n.users, err = directory.New(n.auth, users, directory.Config{
		Logger: s.log, RelyingParty: relyingParty(s.passkeys, s.config.Issuer, s.origins),
	})
	if field, ok := errors.AsType[*counterfoil.FieldError](err); ok && s.passkeys != "" && strings.HasPrefix(field.Field, "RelyingParty.") {
		err = usagef("--passkey-domain: %s", field.Message)
	}
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// openSealed opens the authority over the database of --database. What the
// library checks first, the configuration, fails before anything is made.
func openSealed(ctx context.Context, s *serveSettings) (auth *counterfoil.Authority, err error) {
	if s.database.isSQLite() {
		if _, err := s.database.checkFile(); err != nil {
			return nil, err
		}
	}
	if s.seal, err = chooseSeal(s.database, s.sealFile, s.sealText); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.seal.discard()) }()
	if err := s.database.connect(); err != nil {
		return nil, err
	}
	s.config.Seal = s.seal.Seal
	auth, err = counterfoil.New(ctx, sealedStore{s.database.whole(), s}, s.config)
	if err != nil {
		return nil, errors.Join(explainOpen(s, err), s.database.whole().Close())
	}
	return auth, nil
}

// sealedStore opens the database, and keeps a new seal between that and the
// making of keys.
type sealedStore struct {
	counterfoil.Store
	s *serveSettings
}

func (g sealedStore) Open(ctx context.Context) error {
	if err := g.s.database.create(ctx, false); err != nil {
		return err
	}
	return g.s.seal.keep(ctx, g.Store.Catalog())
}

// explainOpen says what to do about an authority that did not open.
func explainOpen(s *serveSettings, err error) error {
	if missing, ok := errors.AsType[*missingSealError](err); ok {
		return missing
	}
	if database, ok := errors.AsType[*databaseError](err); ok {
		return database
	}
	if errors.Is(err, counterfoil.ErrWrongSeal) {
		return fmt.Errorf("%s does not open the signing keys in %s: give the seal they were made with; nothing was changed", s.seal.where, s.database)
	}
	if field, ok := errors.AsType[*counterfoil.FieldError](err); ok && field.Field == "Seal" {
		if s.seal.where == "COUNTERFOIL_SEAL" {
			return fmt.Errorf("COUNTERFOIL_SEAL: %s", field.Message)
		}
		return errors.New(field.Message)
	}
	return flagError(err)
}

// run serves until ctx ends, then finishes what is under way.
func (s *serveSettings) run(ctx context.Context, listener net.Listener, n *node) error {
	metrics := httpapi.NewMetrics(n.auth)
	handler := httpapi.Handler(n.auth, httpapi.WithDirectory(n.users), httpapi.WithOrigins(s.origins...), httpapi.WithLogger(s.log), httpapi.WithMetrics(metrics))
	server := httpapi.Server(closing(n.auth, underPath(issuerPath(s.issuer), s.withPages(handler, n))))
	if s.exposed(listener) && len(s.proxies) == 0 {
		s.log.Warn("plain http on an address that others can reach: passwords and tokens can be read on the way; give --tls-cert and --tls-key, or put a TLS proxy in front and name it with --trusted-proxies",
			"listen", listener.Addr().String())
	}
	attrs := []any{
		"listen", s.address(listener), "issuer", s.issuer,
		"database", s.where(), "metrics", s.metrics.where(), "version", readBuild().Version,
	}
	if s.seal != nil {
		attrs = append(attrs, "seal", s.seal.where)
		if s.seal.made != nil {
			s.log.Info("made a seal for the signing keys: back it up, apart from the database", "file", s.seal.where)
		}
	}
	if err := s.warn(ctx); err != nil {
		return err
	}
	s.log.Info("counterfoil is ready", attrs...)

	watching, stopWatch := context.WithCancel(ctx)
	defer stopWatch()
	go s.watchMove(watching)
	failed := make(chan error, 2)
	s.metrics.start(metrics, failed)
	s.accept(server, listener, failed)
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	if s.drain > 0 {
		s.log.Info("stopping: not ready from now on, and still serving; a second signal ends it at once", "drain", s.drain.String())
		n.auth.Drain(context.WithoutCancel(ctx), s.drain)
	}
	s.log.Info("stopping: no new connections, requests under way are finished", "timeout", s.shutdown.String())
	return s.finish(ctx, server)
}

// warn says what of the database's settings weakens what a call promises.
func (s *serveSettings) warn(ctx context.Context) error {
	if s.database == nil {
		return nil
	}
	warnings, err := s.database.store.Warnings(ctx)
	if err != nil {
		return s.database.fail(err)
	}
	for _, text := range warnings {
		s.log.Warn("database: " + text)
	}
	return nil
}

// closing has clients of a node that is about to end make their next
// connection elsewhere. Connections are closed behind an answer: one that was
// closed while idle may have the next request under way already.
func closing(auth *counterfoil.Authority, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if auth.Draining() {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// accountPath is where the pages of an account are.
const accountPath = "/account"

// withPages adds the pages to the API.
func (s *serveSettings) withPages(api http.Handler, n *node) http.Handler {
	if s.pagesName == "" {
		return api
	}
	account := pages.Handler(n.auth, n.users, pages.WithName(s.pagesName), pages.WithRedirectOrigins(s.origins...),
		pages.WithDeviceAPI(issuerPath(s.issuer)+"/v1/auth"), pages.WithLogger(s.log))
	mux := http.NewServeMux()
	mux.Handle("/", api)
	mux.Handle(accountPath+"/", http.StripPrefix(accountPath, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(s.issuer, "https:") {
			guard.Transport(w.Header(), true) // as the API beside them says it
		}
		account.ServeHTTP(w, r)
	})))
	return mux
}

func (s *serveSettings) where() string {
	if s.database == nil {
		return "memory"
	}
	return s.database.String()
}

// underPath serves an issuer that has a path: its calls come with the path,
// or without it from a proxy that took it off. The discovery document of such
// an issuer has its well-known part before the path (RFC 8414 section 3.1).
func underPath(path string, h http.Handler) http.Handler {
	if path == "" {
		return h
	}
	const discovery = "/.well-known/oauth-authorization-server"
	stripped := http.StripPrefix(path, h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, path+"/"):
			stripped.ServeHTTP(w, r)
		case r.URL.Path == discovery+path:
			r2 := r.Clone(r.Context())
			r2.URL.Path, r2.URL.RawPath = discovery, ""
			h.ServeHTTP(w, r2)
		default:
			h.ServeHTTP(w, r)
		}
	})
}
