package verify

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/jwk"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// feedLog plays a store's log of revocations, and the node that serves it.
type feedLog struct {
	keys func() int64

	mu       sync.Mutex
	table    *revoked.Table
	log      []Revocation
	node     *feed.Server
	nodes    int
	timeline int64
	retain   int // bytes for readers that come back; 0: enough
	seq      int64
	frozen   time.Time // when the node lost its store; zero: it has it
	unread   []Revocation
}

func newFeedLog(keys func() int64) *feedLog {
	l := &feedLog{keys: keys, timeline: 7, seq: 100, table: revoked.NewTable(nil)}
	l.start()
	return l
}

// start makes a node that has read the whole log.
func (l *feedLog) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes++
	l.node = feed.NewServer(feed.ServerConfig{
		Node: fmt.Sprint("node-", l.nodes), Retain: time.Minute, RetainBytes: l.retain, KeyVersion: l.keys,
		Snapshot: l.snapshot, Wake: func() { l.publish() },
	})
	entries, at := l.read(nil)
	l.table.Apply(entries...)
	l.node.Publish(feed.Position{Timeline: l.timeline, Seq: l.seq}, slices.Clone(l.log), at)
}

// restart ends the node, and every stream with it.
func (l *feedLog) restart() {
	l.server().Close()
	l.start()
}

func (l *feedLog) server() *feed.Server {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.node
}

func (l *feedLog) snapshot() []Revocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.Snapshot()
}

// publish is one read of the log by the node.
func (l *feedLog) publish(entries ...Revocation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries, at := l.read(entries)
	l.table.Apply(entries...)
	l.node.Publish(feed.Position{Timeline: l.timeline, Seq: l.seq}, entries, at)
}

// read returns what is new in the store, and when it was read. Nothing can be
// read while the node has no store.
func (l *feedLog) read(committed []Revocation) ([]Revocation, time.Time) {
	l.unread = append(l.unread, committed...)
	if !l.frozen.IsZero() {
		return nil, l.frozen
	}
	entries := l.unread
	l.unread = nil
	for i := range entries {
		l.seq++
		entries[i].Position = l.seq
	}
	l.log = append(l.log, entries...)
	return entries, time.Now()
}

// freeze cuts the node from its store, or joins them again.
func (l *feedLog) freeze(cut bool) {
	l.publish() // what there is up to now
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !cut:
		l.frozen = time.Time{}
	case l.frozen.IsZero():
		l.frozen = time.Now()
	}
}

func readFrames(t *testing.T, events ...string) (frames []feed.Frame) {
	t.Helper()
	r := feed.NewReader(strings.NewReader(strings.Join(events, "")))
	for range events {
		f, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, f)
	}
	return frames
}

func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// jwks is the document of the present keys.
func (a *authority) jwks() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	set := jwk.Set{Version: a.version}
	for _, k := range a.keys {
		set.Keys = append(set.Keys, k.public)
	}
	return jwk.MarshalSet(set)
}

// endSession is a revocation as the authority makes it for 5-minute tokens.
func endSession(sid string) Revocation {
	return Revocation{Kind: RevokeSession, ID: sid, Until: time.Now().Add(5*time.Minute + retainMargin)}
}
