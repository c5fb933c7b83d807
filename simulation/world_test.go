package simulation

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
)

// world is one run.
type world struct {
	seed    uint64
	planted string // the bug, if any
	length  time.Duration
	// degraded is how long nodes that are cut off mint from copies; 0: not at all.
	degraded time.Duration
	dice     *rand.Rand
	log      *slog.Logger
	net      *network
	db       *database
	model    *model
	app      *application
	apiKey   string
	begin    time.Time

	nodes    []*node
	services []*service
	browsers []*browser
	backend  *http.Client
	clients  map[string]*http.Client

	storeSkew atomic.Int64
	restored  atomic.Int64 // how often the database went back
	goingBack turn         // held meanwhile
	// Under the model's mu:
	storeSince time.Time // when the store's clock was set last
	restoredAt time.Time // when the database last went back

	decisions  atomic.Int64
	fromCopies atomic.Int64 // degraded tokens
	background sync.WaitGroup
	cancel     context.CancelFunc

	mu     sync.Mutex
	broken *violation
	trace  []string
}

func newWorld(seed uint64, planted, dir string) *world {
	w := &world{
		seed: seed, planted: planted, dice: rand.New(rand.NewPCG(seed, 1)),
		goingBack: make(turn, 1), net: newNetwork(), model: newModel(), begin: time.Now(), clients: make(map[string]*http.Client),
	}
	w.log = slog.New(slog.DiscardHandler)
	if *verbose {
		w.log = slog.New(slog.NewTextHandler(&tracer{w: w}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	w.app = &application{w.model}
	w.db = newDatabase(w.storeNow)
	// The longest is longer than any revocation is retained.
	w.length = pick(w.dice, []time.Duration{8 * time.Second, 10 * time.Second, 12 * time.Second, 15 * time.Second, 15 * time.Second, 20 * time.Second, 30 * time.Second, 75 * time.Second})
	for i := range 2 + w.dice.IntN(2) {
		w.nodes = append(w.nodes, &node{w: w, name: fmt.Sprintf("n%d", i), turn: make(turn, 1)})
	}
	for i := range 2 {
		s := &service{w: w, name: fmt.Sprintf("v%d", i), turn: make(turn, 1)}
		s.cache = cacheFile(dir, s.name)
		if w.dice.IntN(2) == 0 {
			s.skew = time.Duration(w.dice.Int64N(int64(3*time.Second))) - 1500*time.Millisecond
		}
		w.services = append(w.services, s)
	}
	for i := range 4 {
		b := w.newBrowser(i)
		w.browsers = append(w.browsers, b)
		w.clients[b.name] = w.client(b.name)
	}
	w.backend = w.client("backend")
	if planted == "" && seed%3 == 0 {
		w.degraded = 30 * time.Second
	}
	return w
}

func (w *world) device(name string) *http.Client { return w.clients[name] }

func (w *world) storeNow() time.Time { return time.Now().Add(time.Duration(w.storeSkew.Load())) }

// pick chooses a node for a connection, as a load balancer that knows nothing.
func (w *world) pick(name string, dial uint64) string {
	dice := rand.New(rand.NewPCG(w.seed^uint64(name[1]), dial))
	return w.nodes[dice.IntN(len(w.nodes))].name
}

// note writes a line into the trace of the run.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.trace) > 4000 {
		w.trace = w.trace[2000:]
	}
	w.trace = append(w.trace, fmt.Sprintf("%9.3f ", time.Since(w.begin).Seconds())+fmt.Sprintf(format, args...))
}

// tracer puts the logs of the programs into the trace.
type tracer struct{ w *world }

func (t *tracer) Write(p []byte) (int, error) {
	_, text, _ := bytes.Cut(p, []byte("level="))
	t.w.note("    %s", bytes.TrimSpace(text))
	return len(p), nil
}

// fail notes the first promise that is broken and ends the run.
func (w *world) fail(promise int, format string, args ...any) {
	v := &violation{promise, fmt.Sprintf(format, args...)}
	w.note("BROKEN: %s", v)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken == nil {
		w.broken = v
	}
	if w.cancel != nil {
		w.cancel()
	}
}

func (w *world) failed() *violation {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

// story is the end of the trace.
func (w *world) story(lines int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.trace[max(0, len(w.trace)-lines):], "\n")
}

// run is a whole run: everything starts, things go wrong for a while, then all
// is mended and has to come right.
func (w *world) run() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	defer w.end()
	if !w.start(ctx) {
		return
	}
	var users sync.WaitGroup
	work, finish := context.WithTimeout(ctx, w.length)
	for _, b := range w.browsers {
		users.Go(func() { b.run(work) })
	}
	users.Go(func() { w.trouble(work) })
	users.Wait()
	finish()
	if w.failed() == nil {
		w.mend(ctx)
	}
	if w.failed() == nil {
		w.audit(ctx)
	}
}

func (w *world) start(ctx context.Context) bool {
	for _, n := range w.nodes {
		n.usual = time.Duration(w.dice.Int64N(int64(2*time.Second))) - time.Second
		n.setClock(n.usual)
		if err := n.start(ctx); err != nil {
			w.fail(0, "%s does not start: %v", n.name, err)
			return false
		}
	}
	auth, _ := w.nodes[0].process()
	secret, _, err := auth.CreateAPIKey(ctx, counterfoil.NewAPIKey{Name: "simulation"})
	if err != nil {
		w.fail(0, "no API key: %v", err)
		return false
	}
	w.apiKey = secret.Reveal()
	for _, s := range w.services {
		s.start()
	}
	return true
}

func (w *world) end() {
	w.cancel()
	for _, s := range w.services {
		s.stop(false)
	}
	for _, n := range w.nodes {
		n.stop()
	}
	for _, c := range w.clients {
		c.CloseIdleConnections()
	}
	w.backend.CloseIdleConnections()
	w.background.Wait()
	// Who stands still in a read goes on, and finds that all is over.
	_ = sleep(context.Background(), longestPause)
}
