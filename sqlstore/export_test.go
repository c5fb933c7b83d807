package sqlstore

// Waiting is how many calls wait for a statement that they will share.
func (s *Store) Waiting() int {
	p := s.engine.(*pool)
	return p.inserts.length() + p.ends.length() + p.journal.length()
}

func (g *gather[T]) length() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting)
}

// Lanes is how many such statements are under way at once.
func (s *Store) Lanes() int { return s.engine.(*pool).inserts.lanes }

// Busy is how many of them are.
func (s *Store) Busy() int {
	p := s.engine.(*pool)
	return p.inserts.underWay() + p.ends.underWay() + p.journal.underWay()
}

func (g *gather[T]) underWay() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.busy
}
