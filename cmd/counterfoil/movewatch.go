package main

import (
	"context"
	"time"

	"github.com/counterfoil/counterfoil/sqlstore"
)

const (
	// moveLook is how often a server looks whether its database is being moved.
	moveLook = 5 * time.Second
	// movedAgain is how often it says that this has happened.
	movedAgain = time.Minute
)

// watchMove tells the log of a move to another database, and takes down a
// fence whose command is gone: no database refuses writes for ever because a
// command was killed.
func (s *serveSettings) watchMove(ctx context.Context) {
	if s.database == nil {
		return
	}
	var fenced bool
	var told time.Time
	tick := time.NewTicker(moveLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		state, err := s.database.store.MoveState(ctx)
		if err != nil {
			continue // others say that the database does not answer
		}
		switch was := fenced; {
		case !state.MovedAt.IsZero():
			if time.Since(told) > movedAgain {
				told = time.Now()
				s.log.Error("everything was moved to another database: this server answers 503 and mints nothing; start servers there, and stop this one",
					"database", state.Target, "moved_at", state.MovedAt)
			}
		case state.Role == sqlstore.MoveSource:
			if fenced = true; !was {
				s.log.Warn("a move to another database refuses writes for a moment: sign-ins and revocations answer 503, access tokens are minted",
					"database", state.Target, "since", state.FencedAt)
			}
			s.liftDeadFence(ctx)
		default:
			if fenced = false; was {
				s.log.Info("writes are allowed again: the move has not switched yet")
			}
		}
	}
}

func (s *serveSettings) liftDeadFence(ctx context.Context) {
	switch lifted, err := s.database.store.LiftFence(ctx, moveSilent); {
	case err != nil:
		s.log.Error("a move refuses writes and its command is gone; the fence could not be taken down: run counterfoil move --abort", "error", err)
	case lifted:
		s.log.Warn("a move refused writes and its command was not heard of any more: writes are allowed again, run counterfoil move once more", "silent", moveSilent)
	}
}
