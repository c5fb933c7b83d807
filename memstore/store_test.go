package memstore

import (
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(_ *testing.T, clock func() time.Time) storetest.Stores {
		s := New(Clock(clock))
		return storetest.Stores{Store: s, Users: s.Users()}
	})
}
