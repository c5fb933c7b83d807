package verify_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

func ExampleVerifier_Require() {
	authority, token := startAuthority() // in life: another process
	defer authority.Close()

	v, err := verify.New(context.Background(), verify.Config{
		Issuer:    "https://app.example",
		Audience:  "orders",
		Authority: authority.URL,   // an internal address; default: the issuer
		APIKey:    "cf_sk_example", // for the feed of revocations and live checks
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()

	signedIn := v.Require()                                                   // local: asks nobody
	strict := v.Require(verify.MaxFeedAge(time.Second))                       // local while the feed is heard
	careful := v.Require(verify.Live(), verify.MaxAuthAge(10*time.Minute))    // asks the authority
	staff := v.Require(verify.Role("staff"), verify.MaxTokenAge(time.Minute)) // a role, seen lately

	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := verify.FromContext(r.Context())
		fmt.Fprintf(w, "hello, %s", claims.Subject)
	})
	mux := http.NewServeMux()
	mux.Handle("GET /orders", signedIn(hello))
	mux.Handle("DELETE /account", careful(hello))
	mux.Handle("POST /orders", strict(hello))
	mux.Handle("GET /staff", staff(hello))

	for _, route := range []string{"GET /orders", "POST /orders", "DELETE /account", "GET /staff"} {
		var method, path string
		fmt.Sscan(route, &method, &path)
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(route, w.Code)
	}
	// Output:
	// GET /orders 200
	// POST /orders 200
	// DELETE /account 200
	// GET /staff 403
}

// Without HTTP, for instance behind gRPC, the same rules hold.
func ExampleVerifier_Check() {
	authority, token := startAuthority()
	defer authority.Close()
	ctx := context.Background()
	v, err := verify.New(ctx, verify.Config{Issuer: "https://app.example", Audience: "orders", Authority: authority.URL})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()

	claims, err := v.Check(ctx, token)
	fmt.Println(claims.Subject, err)

	_, err = v.Check(ctx, token, verify.Scope("orders:write"))
	fmt.Println(errors.Is(err, verify.ErrForbidden), errors.Is(err, verify.ErrInsufficientScope))

	_, err = v.Check(ctx, "not a token")
	fmt.Println(errors.Is(err, verify.ErrUnauthenticated), errors.Is(err, verify.ErrTokenInvalid))
	// Output:
	// user-1 <nil>
	// true true
	// true true
}

func ExampleClaims_Decode() {
	authority, token := startAuthority()
	defer authority.Close()
	ctx := context.Background()
	v, err := verify.New(ctx, verify.Config{Issuer: "https://app.example", Audience: "orders", Authority: authority.URL})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()

	claims, err := v.Check(ctx, token)
	if err != nil {
		fmt.Println(err)
		return
	}
	var mine struct {
		Plan string `json:"plan"`
	}
	if err := claims.Decode(&mine); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(mine.Plan)
	// Output: gold
}

// A test of a handler needs no token.
func ExampleNewContext() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		claims, ok := verify.FromContext(r.Context())
		fmt.Println(ok, claims.Subject, claims.HasRole("admin"))
	}
	r := httptest.NewRequest("GET", "/", nil)
	r = r.WithContext(verify.NewContext(r.Context(), &verify.Claims{Subject: "user-1", Roles: []string{"admin"}}))
	handler(httptest.NewRecorder(), r)
	// Output: true user-1 true
}
