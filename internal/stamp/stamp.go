// Package stamp holds what a release writes into its binary: those are built
// without asking git, so that the same source gives the same bytes everywhere.
package stamp

// Version and Revision are set by the linker (-X); empty in other builds, which
// have them from debug.ReadBuildInfo.
var Version, Revision string
