// Package look holds what all pages of ours look like: one stylesheet with its
// variables on top, and the mark.
package look

import "embed"

// Files are counterfoil.css and mark.svg.
//
//go:embed counterfoil.css mark.svg
var Files embed.FS
