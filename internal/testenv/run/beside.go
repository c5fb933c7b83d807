//go:build unix

package main

import (
	"bytes"
	"io"
	"sync"
)

// beside runs parts at once: most tests wait for servers and browsers for much
// of their time. The lines of the first are printed as they come, a step of
// any other when it has ended.
func (r *runner) beside(parts ...func(r *runner)) {
	var mu sync.Mutex
	var all sync.WaitGroup
	own := make([]*runner, len(parts))
	for i, part := range parts {
		out := &turns{mu: &mu, out: r.out, whole: i > 0}
		own[i] = &runner{root: r.root, environ: r.environ, out: out}
		all.Go(func() {
			defer out.flush()
			part(own[i])
		})
	}
	all.Wait()
	for _, o := range own {
		r.results = append(r.results, o.results...)
	}
}

// turns is one of several writers to the same place. What it writes is not
// mixed with what others write within a line, or with whole, within a step.
type turns struct {
	mu    *sync.Mutex
	out   io.Writer
	whole bool
	rest  []byte
}

func (t *turns) Write(p []byte) (int, error) {
	t.rest = append(t.rest, p...)
	if i := bytes.LastIndexByte(t.rest, '\n'); i >= 0 && !t.whole {
		t.print(i + 1)
	}
	return len(p), nil
}

// flush prints what is left.
func (t *turns) flush() { t.print(len(t.rest)) }

func (t *turns) print(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = t.out.Write(t.rest[:n]) // as fmt.Fprintf to it elsewhere: nobody could be told
	t.rest = append(t.rest[:0], t.rest[n:]...)
}
