//go:build race

package faults

// raceEnabled: lockkeeper is built with the race detector, too, and needs
// several times the memory.
const raceEnabled = true
