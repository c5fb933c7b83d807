//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/counterfoil/counterfoil/bench/internal/stage"
)

// onRelays measures verifiers that follow the last of so many relays, each of
// which follows the one before it, the first the server.
func (b *bench) onRelays(ctx context.Context, relays int) (err error) {
	g := &group{name: fmt.Sprintf("counterfoil on SQLite, plain, behind %d relays", relays)}
	server, err := b.serve(ctx, "sqlite:"+filepath.Join(b.dir, fmt.Sprint("relays", relays, ".db")), false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.close()) }()
	telling := server
	for range relays {
		between := &node{binary: b.binary}
		between.Counterfoil, err = stage.Relay(ctx, b.binary, telling.Address, server.APIKey, stage.ServeOptions{Issuer: issuer, Processors: b.serverUse})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, between.close()) }()
		telling = between
	}
	return b.counterfoil(ctx, g, server, telling, b.bare())
}
