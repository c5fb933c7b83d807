package counterfoil_test

import (
	"errors"
	"testing"

	"github.com/counterfoil/counterfoil"
)

// An application's cookie ends in its id: one that would have the name of
// another cookie of ours is refused at start, and not found out by users who
// are signed out.
func TestClientIDsThatAreNamesOfCookies(t *testing.T) {
	for id, refused := range map[string]bool{
		"at": true, "bound": true, "bound-shop": true, "ceremony": true, "note": true,
		"bounds": false, "shop-bound": false, "atlas": false,
	} {
		c := baseConfig()
		c.MoreClientIDs = []string{"shop", id}
		a, err := counterfoil.New(t.Context(), newStore(t), c)
		var wrong *counterfoil.FieldError
		switch {
		case refused && (!errors.As(err, &wrong) || wrong.Field != "MoreClientIDs[1]"):
			t.Errorf("%q: got %v, want a refusal of the field", id, err)
		case !refused && err != nil:
			t.Errorf("%q: %v", id, err)
		}
		if err == nil {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
