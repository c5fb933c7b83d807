package archtest

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// report fails the test with every violation.
func report(t *testing.T, violations []string) {
	t.Helper()
	for _, v := range violations {
		t.Error(v)
	}
}

// The imports of the repository point one way.
func TestArrows(t *testing.T) {
	g := load(t, "./...")
	if len(g.mine()) == 0 {
		t.Fatal("go list found no package of ours")
	}
	for name, check := range map[string]func(graph) []string{
		"imports point down":              checkArrows,
		"verify is standard library only": checkVerify,
		"the caller brings the driver":    checkDrivers,
		"no test code in the binary":      checkBinary,
	} {
		t.Run(name, func(t *testing.T) { report(t, check(g)) })
	}
}

func TestInterfacesAreSmall(t *testing.T) {
	// Programs export nothing, and would compile drivers for nothing.
	var libraries []string
	for _, p := range load(t, "./...").mine() {
		if top := first(inside(p.ImportPath)); top != "cmd" && top != "examples" {
			libraries = append(libraries, p.ImportPath)
		}
	}
	list, err := loadTypes(load(t, append([]string{"-export"}, libraries...)...))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		report(t, checkInterfaces(p))
	}
}

func TestFiles(t *testing.T) {
	seen := map[string]bool{}
	for _, file := range committed(t) {
		source, err := os.ReadFile(filepath.Join(repository(t), file))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		seen[file] = true
		report(t, checkRandom(file, source, jitter))
		report(t, checkLength(file, source, longFiles))
		report(t, checkHygiene(file, source))
	}
	for _, list := range []map[string]string{jitter, longFiles} {
		for file := range list {
			if !seen[file] {
				t.Errorf("the exception for %s is left over: the file is gone", file)
			}
		}
	}
}

// committed returns the files that git knows, or, where there is no git
// clone, all files but installed ones.
func committed(t *testing.T) []string {
	t.Helper()
	root := repository(t)
	if _, err := os.Stat(filepath.Join(root, ".git")); err == nil {
		// Root may look at someone else's clone.
		cmd := exec.Command("git", "-c", "safe.directory=*", "ls-files", "-z")
		cmd.Dir = root
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git ls-files: %v", err)
		}
		var files []string
		for _, file := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
			if info, err := os.Lstat(filepath.Join(root, file)); err == nil && info.Mode().IsRegular() {
				files = append(files, file)
			}
		}
		return files
	}
	var files []string
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "node_modules" || name == "tmp") {
			return fs.SkipDir
		}
		if entry.Type().IsRegular() {
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
