// Command generate writes the vector files of the folder above, which the
// verifiers in Go and TypeScript run. What they expect is written down here by
// hand, not taken from either of them. The output is the same each time:
// signatures are made without randomness.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	dir := "."
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	for name, content := range map[string]any{
		"tokens.json":      tokens(),
		"jwks.json":        keySets(),
		"json.json":        documents(),
		"revocations.json": tables(),
		"feed.json":        streams(),
		"requests.json":    requests(),
	} {
		if err := write(filepath.Join(dir, name), content); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func write(path string, content any) error {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(content); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}

// must is for what cannot fail with the constants of this program.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type object = map[string]any
type list = []any
