package verify

import "context"

type contextKey struct{}

// NewContext returns a context that carries the claims, as [Verifier.Require]
// hands it to handlers. Tests of handlers call it with claims of their own.
func NewContext(ctx context.Context, c *Claims) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// FromContext returns the claims of the request's verified access token, and
// false where there is none: outside of Require, or behind Optional without a
// credential.
func FromContext(ctx context.Context) (*Claims, bool) {
	c, ok := ctx.Value(contextKey{}).(*Claims)
	return c, ok && c != nil
}
