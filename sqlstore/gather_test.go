package sqlstore

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
)

const testLanes = 3

// statement is one use of gather.send that the test answers.
type statement struct {
	ctx    context.Context
	calls  []*call[lookup]
	answer chan error
}

func gatherTest(t *testing.T, fn func(g *gather[lookup], sent <-chan statement)) {
	synctest.Test(t, func(t *testing.T) {
		sent := make(chan statement, 100)
		g := &gather[lookup]{lanes: testLanes, send: func(ctx context.Context, calls []*call[lookup]) error {
			s := statement{ctx, calls, make(chan error)}
			sent <- s
			select {
			case err := <-s.answer:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		fn(g, sent)
		synctest.Wait()
		if g.busy != 0 || len(g.waiting) != 0 {
			t.Errorf("in the end %d lanes are busy and %d calls wait", g.busy, len(g.waiting))
		}
	})
}

func ask(ctx context.Context, g *gather[lookup], sid string) <-chan error {
	done := make(chan error, 1)
	go func() {
		snap, _, err := (&pool{reads: g}).ask(ctx, sid)
		if err == nil && snap.Session.ID != sid {
			err = errors.New("got " + snap.Session.ID)
		}
		done <- err
	}()
	return done
}

func (s statement) find() {
	for _, c := range s.calls {
		c.it.found, c.it.snap.Session.ID = true, c.it.sid
	}
	s.answer <- nil
}

// busyLanes sends one question down each lane.
func busyLanes(g *gather[lookup], sent <-chan statement) (statements []statement, answers []<-chan error) {
	for range testLanes {
		answers = append(answers, ask(context.Background(), g, "first"))
		synctest.Wait()
		statements = append(statements, <-sent)
	}
	return statements, answers
}

func TestGatherSharesStatements(t *testing.T) {
	gatherTest(t, func(g *gather[lookup], sent <-chan statement) {
		statements, answers := busyLanes(g, sent)
		for range gatherMost + 3 {
			answers = append(answers, ask(context.Background(), g, "later"))
		}
		synctest.Wait()
		if len(sent) != 0 {
			t.Fatal("a statement was sent with every lane busy")
		}
		statements[1].find()
		synctest.Wait()
		if s := <-sent; len(s.calls) != gatherMost {
			t.Fatalf("%d calls in the statement after, want %d", len(s.calls), gatherMost)
		} else {
			statements = append(statements, s)
		}
		statements[0].find()
		synctest.Wait()
		if s := <-sent; len(s.calls) != 3 {
			t.Fatalf("%d calls in the last statement, want 3", len(s.calls))
		} else {
			statements = append(statements, s)
		}
		for _, s := range statements[2:] {
			s.find()
		}
		for _, answer := range answers {
			if err := <-answer; err != nil {
				t.Error(err)
			}
		}
	})
}

// One statement at a time, for as long as it is quick.
func TestGatherLanes(t *testing.T) {
	gatherTest(t, func(g *gather[lookup], sent <-chan statement) {
		answers := []<-chan error{ask(context.Background(), g, "first")}
		synctest.Wait()
		first := <-sent
		for range 2 {
			answers = append(answers, ask(context.Background(), g, "later"))
		}
		time.Sleep(gatherPatience - time.Millisecond)
		synctest.Wait()
		if len(sent) != 0 {
			t.Fatal("a second statement was sent at once")
		}
		first.find()
		synctest.Wait()
		if len(sent) != 1 {
			t.Fatalf("%d statements after the first", len(sent))
		}
		second := <-sent
		if len(second.calls) != 2 {
			t.Fatalf("%d calls in the second statement, want 2", len(second.calls))
		}

		// The second is slow: those who come later wait no longer than that.
		start := time.Now()
		answers = append(answers, ask(context.Background(), g, "third"))
		third := <-sent
		if waited := time.Since(start); waited != gatherPatience || len(third.calls) != 1 {
			t.Errorf("%d calls went their own way after %s, want 1 after %s", len(third.calls), waited, gatherPatience)
		}
		third.find()
		second.find()
		for _, answer := range answers {
			if err := <-answer; err != nil {
				t.Error(err)
			}
		}
	})
}

// What is asked after a statement was sent is not answered by it.
func TestGatherNeverAnswersWithAnOlderStatement(t *testing.T) {
	gatherTest(t, func(g *gather[lookup], sent <-chan statement) {
		statements, first := busyLanes(g, sent)
		late := ask(context.Background(), g, "first")
		synctest.Wait()
		statements[0].find()
		synctest.Wait()
		select {
		case err := <-late:
			t.Fatalf("answered by a statement sent before it asked (%v)", err)
		default:
		}
		(<-sent).find()
		for _, s := range statements[1:] {
			s.find()
		}
		for _, answer := range append(first, late) {
			if err := <-answer; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestGatherLeaving(t *testing.T) {
	gatherTest(t, func(g *gather[lookup], sent <-chan statement) {
		statements, first := busyLanes(g, sent)
		ctx, cancel := context.WithCancel(context.Background())
		gone, stays := ask(ctx, g, "gone"), ask(context.Background(), g, "stays")
		synctest.Wait()
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("who left got %v", err)
		}
		statements[0].find()
		synctest.Wait()
		if s := <-sent; len(s.calls) != 1 || s.calls[0].it.sid != "stays" {
			t.Errorf("sent %d calls, want the one that is still asked", len(s.calls))
		} else {
			s.find()
		}
		if err := <-stays; err != nil {
			t.Error(err)
		}
		for _, s := range statements[1:] {
			s.find()
		}
		for _, answer := range first {
			if err := <-answer; err != nil {
				t.Error(err)
			}
		}

		// A statement goes on for those who stay, and ends with the last.
		ctx, cancel = context.WithCancel(context.Background())
		gone = ask(ctx, g, "gone")
		synctest.Wait()
		s := <-sent
		cancel()
		<-gone
		synctest.Wait()
		if s.ctx.Err() == nil {
			t.Error("a statement goes on that nobody waits for")
		}
	})
}

func TestGatherFailures(t *testing.T) {
	gatherTest(t, func(g *gather[lookup], sent <-chan statement) {
		broken := errors.New("broken")
		answer := ask(context.Background(), g, "a")
		synctest.Wait()
		(<-sent).answer <- broken
		if err := <-answer; !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}

		answer = ask(context.Background(), g, "a")
		synctest.Wait()
		(<-sent).answer <- nil
		if err := <-answer; !errors.Is(err, counterfoil.ErrNotFound) {
			t.Errorf("got %v", err)
		}

		start := time.Now()
		answer = ask(context.Background(), g, "a")
		if err := failed("read", <-answer); !errors.Is(err, counterfoil.ErrStoreUnavailable) || time.Since(start) != gatherTimeout {
			t.Errorf("after %s got %v", time.Since(start), err)
		}
		<-sent

		for _, sid := range []string{"a\x00b", "a\xff"} {
			if err := <-ask(context.Background(), g, sid); !errors.Is(err, counterfoil.ErrNotFound) {
				t.Errorf("%q: got %v", sid, err)
			}
		}
	})
}

// A silent database holds each question up once, not once for each statement
// before it; and a panic fails those who asked, not the process.
func TestGatherOutages(t *testing.T) {
	gatherTest(t, func(g *gather[lookup], sent <-chan statement) {
		start := time.Now()
		var answers []<-chan error
		for range testLanes + 3*gatherMost {
			answers = append(answers, ask(context.Background(), g, "a"))
			synctest.Wait()
		}
		for _, answer := range answers {
			if err := <-answer; !errors.Is(err, counterfoil.ErrStoreUnavailable) {
				t.Fatalf("got %v", err)
			}
		}
		if waited := time.Since(start); waited != gatherTimeout {
			t.Errorf("the last waited %s", waited)
		}
		send := g.send
		g.send = func(context.Context, []*call[lookup]) error { panic("a driver's mistake") }
		if err := <-ask(context.Background(), g, "a"); !errors.Is(err, counterfoil.ErrStoreUnavailable) {
			t.Errorf("a panic: %v", err)
		}
		g.send = send
	})
}
