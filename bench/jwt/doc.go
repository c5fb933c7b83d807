// Package jwt compares Counterfoil with general JOSE libraries at what a
// service does for each token it has not seen before, and at what an authority
// does for each refresh. Its benchmarks report ratios to the bare signature.
package jwt
