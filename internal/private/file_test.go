package private

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestReplaceAndRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"one", "two"} {
		if err := Replace(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := Read(name, 3)
		if err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
	}
	if _, err := Read(name, 2); err == nil {
		t.Error("a file is read that is too large")
	}
	if entries, err := os.ReadDir(filepath.Dir(name)); err != nil || len(entries) != 1 {
		t.Errorf("%v %v", entries, err)
	}
	if err := Replace(filepath.Join(name, "below"), nil); err == nil {
		t.Error("a file was made below a file")
	}
	if runtime.GOOS == "windows" {
		return
	}
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(name, 3); err == nil {
		t.Error("a file is read that others can read too")
	}
	if _, err := Read(filepath.Dir(name), 3); err == nil {
		t.Error("a folder is read")
	}
}
