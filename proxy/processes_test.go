package proxy

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
	"unique"
)

// at is a session with a server.
func at(address string, since time.Time) *conn {
	return &conn{target: "*", user: "odoo", connected: since, reached: unique.Make(endpoint{address: address})}
}

// TestProcessesOfTwoServersWithOneNumber: servers number their processes on
// their own, and what is kept of one must not be taken for the other's.
func TestProcessesOfTwoServersWithOneNumber(t *testing.T) {
	file := filepath.Join(t.TempDir(), "processes")
	since := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p, err := openProcesses(file, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	sessions := map[string]*conn{}
	for _, address := range []string{"10.0.0.1:5432", "10.0.0.2:5432"} {
		sessions[address] = at(address, since)
		p.began(sessions[address], 77)
	}
	p.ended(sessions["10.0.0.1:5432"], 77, false)
	p.ended(sessions["10.0.0.2:5432"], 77, true)
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

// TestProcessesOfAnotherAreAbsorbed: what a process that has ended has noted is
// known to the one that has taken over from it, and to the next.
func TestProcessesOfAnotherAreAbsorbed(t *testing.T) {
	dir := t.TempDir()
	mine, theirs := filepath.Join(dir, "mine"), filepath.Join(dir, "theirs")
	since := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	old, err := openProcesses(theirs, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	sessions := map[uint32]*conn{}
	for _, pid := range []uint32{1, 2, 3, 4} {
		sessions[pid] = at("a", since)
		old.began(sessions[pid], pid)
	}
	old.keepFile()
	for pid, clean := range map[uint32]bool{1: true, 2: false} { // 3 and 4 are live when it dies
		old.ended(sessions[pid], pid, clean)
	}
	p, err := openProcesses(mine, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	p.began(at("a", since.Add(time.Hour)), 4) // the number is used again
	if err := p.absorb(theirs); err != nil {
		t.Fatal(err)
	}
	if err := p.absorb(theirs); err != nil { // it is removed
		t.Fatal(err)
	}
	for name, p := range map[string]*processes{"absorbed": p, "after a restart": reopened(t, p, mine)} {
		var pids []uint32
		for _, x := range p.lostOf(func(*process) bool { return true }) {
			pids = append(pids, x.PID)
		}
		slices.Sort(pids)
		want := []uint32{2, 3}
		if name == "after a restart" {
			want = []uint32{2, 3, 4} // whose session was live
		}
		if !slices.Equal(pids, want) {
			t.Errorf("%s: %v are lost, want %v", name, pids, want)
		}
	}
}

func reopened(t *testing.T, p *processes, path string) *processes {
	t.Helper()
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
	again, err := openProcesses(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.close() })
	return again
}

// A process that hands over does not make its file anew: another reads it.
func TestAFileThatIsHandedOverIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "processes")
	p, err := openProcesses(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	p.written = maxProcessLines
	p.keepFile()
	c := at("a", time.Now())
	p.began(c, 1)
	p.ended(c, 1, true)
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the file is another: %v", err)
	}
}

// TestProcessesThatCouldNotBeNoted: what a full disk did not take is noted with
// the next process, and what it took of a line spoils no other.
func TestProcessesThatCouldNotBeNoted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "processes")
	p, err := openProcesses(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	begin := func(pid uint32) { p.began(at("", time.Now()), pid) }
	begin(1)
	good := p.file
	if p.file, err = os.Open(path); err != nil { // cannot be written
		t.Fatal(err)
	}
	begin(2)
	if p.failure() == nil {
		t.Error("nobody is told")
	}
	_ = p.file.Close()
	p.file = good
	begin(3)
	if err := p.failure(); err != nil {
		t.Error(err)
	}
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
	again, err := openProcesses(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if n := again.lostCount(); n != 3 {
		t.Errorf("%d processes are known after a restart, want 3", n)
	}
	if err := again.close(); err != nil {
		t.Fatal(err)
	}
}
