package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// The same source in two folders gives the same bytes: archive, bill of
// materials, sums.
func TestReproducible(t *testing.T) {
	if os.Getenv("COUNTERFOIL_TEST_RELEASE") == "" {
		t.Skip("builds the binary twice, for minutes: make release runs it first")
	}
	target := runtime.GOOS + "/" + runtime.GOARCH
	if !slices.Contains(targets, target) {
		t.Skip("no release for " + target)
	}
	here, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	there := filepath.Join(t.TempDir(), "a folder elsewhere")
	copySource(t, here, there)
	made := map[string]map[string][]byte{}
	for _, root := range []string{here, there} {
		r := &release{root: root, out: t.TempDir(), version: "v0.0.1", revision: strings.Repeat("ab", 20), at: time.Unix(1_780_000_000, 0).UTC()}
		if err := r.make(t.Context(), []string{target}); err != nil {
			t.Fatal(err)
		}
		made[root] = read(t, r.out)
	}
	if len(made[here]) != 3 {
		t.Errorf("made %d files, want archive, bill and sums", len(made[here]))
	}
	for name, data := range made[here] {
		if !bytes.Equal(data, made[there][name]) {
			t.Errorf("%s differs between two folders", name)
		}
		switch {
		case strings.HasSuffix(name, ".tar.gz"):
			checkArchive(t, data, here, there)
		case strings.HasSuffix(name, ".cdx.json"):
			checkBill(t, data)
		case name == "SHA256SUMS":
			if strings.Count(string(data), "\n") != 2 {
				t.Errorf("SHA256SUMS:\n%s", data)
			}
		}
	}
}

func copySource(t *testing.T, from, to string) {
	t.Helper()
	out, err := exec.Command("git", "-C", from, "ls-files", "-co", "--exclude-standard", "-z").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.Trim(string(out), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed, and not committed yet
		}
		if err == nil {
			err = os.MkdirAll(filepath.Join(to, filepath.Dir(name)), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, e := range entries {
		if all[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// checkArchive unpacks the archive: all is there, the binary runs and says its
// version, and names no folder of the machine that it was built on.
func checkArchive(t *testing.T, data []byte, folders ...string) {
	t.Helper()
	plain, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var names []string
	for archive := tar.NewReader(plain); ; {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Base(head.Name))
		if head.Uid != 0 || head.ModTime.Unix() != 1_780_000_000 {
			t.Errorf("%s: of user %d, %s", head.Name, head.Uid, head.ModTime)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(head.Name)), content, head.FileInfo().Mode()); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"counterfoil", "LICENSE", "LICENSES.txt", "README.md", "counterfoil.conf"} {
		if !slices.Contains(names, want) {
			t.Errorf("the archive has no %s: %q", want, names)
		}
	}
	binary := filepath.Join(dir, "counterfoil")
	out, err := exec.Command(binary, "version").Output()
	if err != nil || !strings.Contains(string(out), "counterfoil v0.0.1 (abababababab)") || !strings.Contains(string(out), runtime.Version()) {
		t.Errorf("version: %s %v", out, err)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range append(folders, os.TempDir()+"/go-build") {
		if folder != "" && folder != "/" && bytes.Contains(content, []byte(folder+"/")) {
			t.Errorf("the binary names %s", folder)
		}
	}
	licences, err := os.ReadFile(filepath.Join(dir, "LICENSES.txt"))
	if err != nil || !bytes.Contains(licences, []byte("==== modernc.org/sqlite ")) || !bytes.Contains(licences, []byte("==== github.com/jackc/pgx/v5 ")) {
		t.Errorf("licences: %.200s %v", licences, err)
	}
}

func checkBill(t *testing.T, data []byte) {
	t.Helper()
	var bill struct {
		Format     string `json:"bomFormat"`
		Components []component
	}
	if err := json.Unmarshal(data, &bill); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"std", "modernc.org/sqlite", "github.com/jackc/pgx/v5"} {
		i := slices.IndexFunc(bill.Components, func(c component) bool { return c.Name == want })
		if bill.Format != "CycloneDX" || i < 0 || bill.Components[i].Version == "" || !strings.HasPrefix(bill.Components[i].PURL, "pkg:golang/"+want+"@") {
			t.Errorf("the bill does not have %s", want)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, args := range [][]string{nil, {"-version", "1.2"}, {"-version", "v1"}, {"-version", "v1.2.3; rm"}} {
		if err := run(t.Context(), args); err == nil || !strings.Contains(err.Error(), "-version") {
			t.Errorf("%q: %v", args, err)
		}
	}
	r := &release{out: t.TempDir(), version: "v1.2.3"}
	if err := os.WriteFile(filepath.Join(r.out, "old.zip"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.make(t.Context(), targets); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Error(err)
	}
	if _, err := checksum("h2:AAAA"); err == nil {
		t.Error("a checksum of another form is taken")
	}
}
