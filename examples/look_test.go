package examples_test

import (
	"bytes"
	"os"
	"testing"
)

// Each example can be copied as it is, so each has its own stylesheet; they
// are one.
func TestExamplesLookAlike(t *testing.T) {
	first, err := os.ReadFile("spa/src/style.css")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ssr/style.css", "express/hosted/style.css"} {
		if other, err := os.ReadFile(name); err != nil || !bytes.Equal(first, other) {
			t.Errorf("%s is not spa/src/style.css (%v): copy it", name, err)
		}
	}
}
