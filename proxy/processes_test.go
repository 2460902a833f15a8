package proxy

import (
	"path/filepath"
	"testing"
	"time"
)

// TestProcessesOfTwoServersWithOneNumber: servers number their processes on
// their own, and what is kept of one must not be taken for the other's.
func TestProcessesOfTwoServersWithOneNumber(t *testing.T) {
	file := filepath.Join(t.TempDir(), "processes")
	since := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p, err := openProcesses(file, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	notes := map[string]*note{}
	for _, address := range []string{"10.0.0.1:5432", "10.0.0.2:5432"} {
		notes[address] = &note{p: p, x: process{Server: "*", Address: address, User: "odoo", Since: since}}
		notes[address].began(77)
	}
	notes["10.0.0.1:5432"].ended(77, false)
	notes["10.0.0.2:5432"].ended(77, true)
	s := &Server{cfg: Config{Servers: map[string]Target{"*": {Host: "10.0.0.1,10.0.0.2", Port: 5432}}}, processes: p}
	look := func(p *processes, address string) int {
		target := s.cfg.Servers["*"]
		return len(p.lostOf(s.of(&target, &endpoint{address: address})))
	}
	if first, second, all := look(p, "10.0.0.1:5432"), look(p, "10.0.0.2:5432"), look(p, ""); first != 1 || second != 0 || all != 1 {
		t.Errorf("lost: %d at the first server, %d at the second, %d in all; want 1, 0, 1", first, second, all)
	}
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
	again, err := openProcesses(file, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if first, second := look(again, "10.0.0.1:5432"), look(again, "10.0.0.2:5432"); first != 1 || second != 0 {
		t.Errorf("after a restart: %d and %d, want 1 and 0", first, second)
	}
	again.found(again.lostOf(func(*process) bool { return true }))
	if n := again.lostCount(); n != 0 {
		t.Errorf("%d are left", n)
	}
	if err := again.close(); err != nil {
		t.Fatal(err)
	}
}
