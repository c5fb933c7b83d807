//go:build unix

package testenv

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestNewestFirst(t *testing.T) {
	dirs := []string{"/usr/lib/postgresql/9.6/bin", "/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/x/bin", "/usr/lib/postgresql/17/bin"}
	newestFirst(dirs)
	want := []string{"/usr/lib/postgresql/17/bin", "/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/9.6/bin", "/usr/lib/postgresql/x/bin"}
	if !slices.Equal(dirs, want) {
		t.Errorf("got %q, want %q", dirs, want)
	}
}

func TestCheckNode(t *testing.T) {
	for version, ok := range map[string]bool{"v18.20.4\n": true, "v22.1.0": true, "v16.0.0": false, "": false, "node": false} {
		if err := checkNode(version); (err == nil) != ok {
			t.Errorf("%q: %v", version, err)
		}
	}
}

func TestEnterable(t *testing.T) {
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	inner := filepath.Join(closed, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if enterable(inner) {
		t.Error("a folder below one of mode 0700 counts as enterable")
	}
	if !enterable("/") {
		t.Error("/ counts as not enterable")
	}
}

// A server takes connections when StartPostgres returns, and is gone, with
// its files, when Stop does.
func TestStartPostgres(t *testing.T) {
	bin, parent := postgresBin(t)
	pg, err := StartPostgres(t.Context(), bin, parent)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := pg.Stop(); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", u.Host); err == nil {
		conn.Close()
		t.Error("the server still listens")
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}

	if _, err := StartPostgres(t.Context(), t.TempDir(), parent); err == nil {
		t.Error("a folder without PostgreSQL was accepted")
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("a failed start left behind: %v, %v", left, err)
	}
}

// postgresBin returns the folder of the server's programs, and one for clusters.
func postgresBin(t *testing.T) (bin, parent string) {
	bin = os.Getenv(PostgresBin)
	if bin == "" {
		if os.Getenv(All) == "1" {
			t.Fatalf("%s is not set", PostgresBin)
		}
		t.Skipf("%s is not set: run make test", PostgresBin)
	}
	parent, err := TempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(parent); err != nil {
			t.Error(err)
		}
	})
	return bin, parent
}
