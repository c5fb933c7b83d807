package sqlstore

import (
	"slices"
	"testing"
)

// A table that a later migration makes cannot be forgotten: it is copied, or
// one of those that are each database's own.
func TestEveryTableIsMoved(t *testing.T) {
	for _, d := range []dialect{sqlite, postgresql} {
		all, err := migrations(d)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"schema", "meta", "moves"}
		if d == postgresql {
			want = append(want, "feed_position") // a sequence, raised with the switch
		}
		for _, table := range movedTables {
			want = append(want, table.name)
		}
		made := tables(all)
		slices.Sort(want)
		slices.Sort(made)
		if !slices.Equal(made, want) {
			t.Errorf("%s: the migrations make\n%q, and a move knows\n%q", d, made, want)
		}
	}
}
