//go:build linux

package stage

import (
	"context"
	"fmt"
)

// Relay starts "counterfoil relay", which follows the authority at an address,
// and returns when it has something to serve.
func Relay(ctx context.Context, binary, authority, apiKey string, options ServeOptions) (*Counterfoil, error) {
	address := options.Address
	if address == "" {
		var err error
		if address, err = FreeAddress(); err != nil {
			return nil, err
		}
	}
	var command []string
	if options.Processors > 0 {
		command = append(command, "taskset", "--cpu-list", fmt.Sprintf("0-%d", options.Processors-1))
	}
	command = append(command, binary, "relay", "--listen", address, "--authority", "http://"+authority, "--issuer", options.Issuer, "--log-level", "warn")
	process, err := start(ctx, "http", address, "/readyz", []string{"COUNTERFOIL_API_KEY=" + apiKey}, command)
	if err != nil {
		return nil, err
	}
	return &Counterfoil{process, apiKey}, nil
}
