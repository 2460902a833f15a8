//go:build race

package session

// raceEnabled: the race detector allocates for itself.
const raceEnabled = true
