package directory_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/counterfoil/counterfoil/directory"
)

// What one hash costs, by its parameters; times and memory for Config.Hash.
func BenchmarkHash(b *testing.B) {
	for _, p := range []directory.Argon2id{
		{Memory: 19 << 10, Time: 2, Parallelism: 1}, {Memory: 46 << 10, Time: 1, Parallelism: 1},
		directory.DefaultArgon2id, {Memory: 64 << 10, Time: 3, Parallelism: 1}, {Memory: 64 << 10, Time: 3, Parallelism: 4},
	} {
		b.Run(fmt.Sprintf("m=%dMiB,t=%d,p=%d", p.Memory>>10, p.Time, p.Parallelism), func(b *testing.B) {
			salt := make([]byte, 16)
			b.ReportAllocs()
			for b.Loop() {
				runtime.KeepAlive(argon2.IDKey([]byte(goodPassword), salt, p.Time, p.Memory, p.Parallelism, 32))
			}
		})
	}
}

// SEC-91: the three answers no must take the same time, with the hash and
// (second group) in all that is around it.
func BenchmarkSignIn(b *testing.B) {
	for _, hash := range []string{"default", "tiny"} {
		for _, who := range []string{"right password", "wrong password", "unknown user", "disabled"} {
			b.Run(hash+" hash/"+who, func(b *testing.B) {
				e := setupBench(b, hash == "tiny")
				in := directory.SignIn{Email: "ada@example.com", Password: goodPassword, Request: from("192.0.2.1")}
				switch who {
				case "wrong password":
					in.Password = otherPassword
				case "unknown user":
					in.Email = "bob@example.com"
				case "disabled":
					in.Email = "eve@example.com"
				}
				for b.Loop() {
					if _, err := e.SignIn(b.Context(), in); (err == nil) != (who == "right password") {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func setupBench(b *testing.B, tiny bool) *env {
	b.Helper()
	free := directory.Limit{Free: 1 << 20, Slowest: time.Second}
	e := newEnv(b, func(c *directory.Config) {
		c.Hash = directory.DefaultArgon2id
		c.Throttle = directory.Throttle{Pair: free, Account: free, Network: free, Range: free}
	})
	if tiny {
		e.HashFast()
	}
	for _, email := range []string{"ada@example.com", "eve@example.com"} {
		u, err := e.Create(b.Context(), directory.NewUser{Email: email, Password: goodPassword})
		if err != nil {
			b.Fatal(err)
		}
		if email == "eve@example.com" {
			if _, err := e.Update(b.Context(), u.ID, directory.Change{Disabled: ptr(true)}); err != nil {
				b.Fatal(err)
			}
		}
	}
	return e
}
