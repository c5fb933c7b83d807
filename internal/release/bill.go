package main

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// component is one of a bill of materials (CycloneDX 1.6).
type component struct {
	Type    string     `json:"type"`
	Ref     string     `json:"bom-ref"`
	Name    string     `json:"name"`
	Version string     `json:"version"`
	PURL    string     `json:"purl,omitempty"`
	Hashes  []hash     `json:"hashes,omitempty"`
	Extra   []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// billOf lists what a binary is made of, from what the Go linker wrote into
// it: the modules that are really linked, with the hashes of go.sum.
func billOf(binary string, r *release, target string) ([]byte, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	const module = "github.com/counterfoil/counterfoil"
	main := component{
		Type: "application", Ref: "counterfoil", Name: module, Version: r.version, PURL: "pkg:golang/" + module + "@" + r.version,
		Hashes: []hash{{"SHA-256", fmt.Sprintf("%x", sha256.Sum256(data))}},
		Extra:  []property{{"platform", target}, {"revision", r.revision}},
	}
	parts := []component{{Type: "library", Ref: "go", Name: "std", Version: info.GoVersion, PURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go")}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		part := component{Type: "library", Ref: m.Path, Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path + "@" + m.Version}
		if part.Extra, err = checksum(m.Sum); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Path, err)
		}
		parts = append(parts, part)
	}
	refs := make([]string, 0, len(parts))
	for _, p := range parts {
		refs = append(refs, p.Ref)
	}
	bill := map[string]any{
		"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
		"metadata":     map[string]any{"timestamp": r.at.Format(time.RFC3339), "component": main},
		"components":   parts,
		"dependencies": []any{map[string]any{"ref": main.Ref, "dependsOn": refs}},
	}
	out, err := json.MarshalIndent(bill, "", "  ")
	return append(out, '\n'), err
}

// checksum is the h1 hash of go.sum: of a list of hashes, so it is none that
// CycloneDX has a name for.
func checksum(sum string) ([]property, error) {
	if sum == "" {
		return nil, nil
	}
	encoded, found := strings.CutPrefix(sum, "h1:")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if !found || err != nil || len(raw) != sha256.Size {
		return nil, fmt.Errorf("checksum %q is not of the form h1", sum)
	}
	return []property{{"go:sum", sum}}, nil
}

// licences puts the licences of all that is linked on any platform into one
// text, which MIT, BSD and Apache ask to come with a binary.
func (r *release) licences(ctx context.Context) ([]byte, error) {
	type listed struct {
		Module *struct {
			Path, Version, Dir string
			Main               bool
		}
	}
	folders := map[string]string{}
	for _, target := range targets {
		system, arch, _ := strings.Cut(target, "/")
		cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-json=Module", "./cmd/counterfoil")
		cmd.Dir = r.root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch, "GOFLAGS=", "GOWORK=off")
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		for d := json.NewDecoder(strings.NewReader(string(out))); ; {
			var one listed
			err := d.Decode(&one)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("go list: %w", err)
			}
			if m := one.Module; m != nil && !m.Main {
				folders[m.Path+" "+m.Version] = m.Dir
			}
		}
	}
	var names []string
	for name := range folders {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString("Counterfoil is licensed under the Apache License 2.0 (LICENSE). It is linked with:\n")
	for _, name := range names {
		text, err := licenceIn(folders[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(&b, "\n==== %s\n\n%s\n", name, strings.TrimSpace(text))
	}
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	text, err := licenceIn(strings.TrimSpace(string(goroot)))
	if err != nil {
		return nil, fmt.Errorf("go: %w", err)
	}
	fmt.Fprintf(&b, "\n==== Go and its standard library\n\n%s\n", strings.TrimSpace(text))
	return []byte(b.String()), nil
}

// licenceIn reads the licences and notices at the top of a module.
func licenceIn(folder string) (string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return "", err
	}
	var texts []string
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		if e.IsDir() || !strings.HasPrefix(name, "LICENSE") && !strings.HasPrefix(name, "LICENCE") && !strings.HasPrefix(name, "COPYING") && !strings.HasPrefix(name, "NOTICE") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			return "", err
		}
		texts = append(texts, strings.ReplaceAll(string(data), "\r\n", "\n"))
	}
	if len(texts) == 0 {
		return "", errors.New("it has no licence at its top")
	}
	return strings.Join(texts, "\n\n"), nil
}
