package verify

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil/internal/jws"
)

// The wall clock of a node was set back after it started: the clock of its
// beats, which is monotonic, stays ahead of the times in its entries.
func TestFeedEntriesDatedBehindTheBeatsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey(t, "k1", jws.ES256)
		a := newAuthority(k)
		v := follow(t, a, Config{})
		claims := goodClaims(time.Now())
		token := k.mint(t, claims)
		check(t, v, token, nil)
		until := time.Now().Add(75*time.Second - time.Hour)
		a.log.publish(Revocation{Kind: RevokeSession, ID: claims["sid"].(string), Until: until})
		time.Sleep(100 * time.Millisecond)
		check(t, v, token, ErrTokenRevoked)
		time.Sleep(50 * time.Second)
		check(t, v, token, ErrTokenRevoked)
	})
}
