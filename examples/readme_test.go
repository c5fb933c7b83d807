package examples_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the excerpt of examples/embed into README.md")

const (
	readme      = "../README.md"
	readmeMark  = "<!-- README:embed -->\n" // the excerpt follows, in a block of its own
	regionStart = "// README:start"
	regionEnd   = "// README:end"
)

// What the README shows of embedding is cut from examples/embed, whose tests
// run it. After a change there:
//
//	go test ./examples -run TestReadme -update
func TestReadme(t *testing.T) {
	excerpt, err := cut("embed/app.go", "embed/account.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(excerpt, "\n"); n < 10 || n > 24 {
		t.Errorf("the excerpt has %d lines: about a dozen and a half is what a first screen holds", n)
	}
	data, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	want, err := insert(string(data), excerpt)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(readme, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(data) {
		t.Errorf("README.md does not show what examples/embed does; run\n\tgo test ./examples -run TestReadme -update\nThe excerpt:\n%s", excerpt)
	}
}

// insert replaces the block after the mark, or adds one.
func insert(text, excerpt string) (string, error) {
	before, after, found := strings.Cut(text, readmeMark)
	if !found || strings.Contains(after, readmeMark) {
		return "", fmt.Errorf("README.md has not one line %q", strings.TrimSpace(readmeMark))
	}
	if rest, block := strings.CutPrefix(after, "```go\n"); block {
		_, rest, closed := strings.Cut(rest, "\n```\n")
		if !closed {
			return "", fmt.Errorf("README.md: the block after %q is not closed", strings.TrimSpace(readmeMark))
		}
		after = rest
	}
	return before + readmeMark + "```go\n" + excerpt + "```\n" + after, nil
}

// cut returns the marked regions of the files, each without the indentation
// of its first line. Regions that stand in different functions are divided by
// an empty line.
func cut(files ...string) (string, error) {
	var out strings.Builder
	inside, indent, function, last := false, "", 0, 0
	for _, file := range files {
		data, err := os.ReadFile(filepath.FromSlash(file))
		if err != nil {
			return "", err
		}
		function++
		for line := range strings.Lines(string(data)) {
			switch text := strings.TrimSpace(line); {
			case strings.HasPrefix(line, "func "):
				function++
			case text == regionStart && !inside:
				inside, indent = true, line[:strings.Index(line, regionStart)]
				if last != 0 && last != function {
					out.WriteString("\n")
				}
				last = function
			case text == regionEnd && inside:
				inside = false
			case text == regionStart || text == regionEnd:
				return "", fmt.Errorf("%s: %s where none belongs", file, text)
			case inside:
				out.WriteString(strings.TrimPrefix(line, indent))
			}
		}
		if inside {
			return "", fmt.Errorf("%s: a region is not closed", file)
		}
	}
	return out.String(), nil
}

func TestReadmeCatchesDrift(t *testing.T) {
	text, err := insert("a\n"+readmeMark+"\nb\n", "x := 1\n")
	if err != nil || text != "a\n"+readmeMark+"```go\nx := 1\n```\n\nb\n" {
		t.Fatalf("%q, %v", text, err)
	}
	changed, err := insert(text, "x := 2\n")
	if err != nil || changed == text || !strings.HasSuffix(changed, "```go\nx := 2\n```\n\nb\n") {
		t.Errorf("%q, %v", changed, err)
	}
	for _, bad := range []string{"", readmeMark + readmeMark, readmeMark + "```go\nx"} {
		if _, err := insert(bad, "x\n"); err == nil {
			t.Errorf("insert takes %q", bad)
		}
	}
}
