package proxy

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// process is one server process that lockkeeper's clients have used.
type process struct {
	PID      uint32    `json:"pid"`
	Server   string    `json:"server"`            // key of the server map
	Address  string    `json:"address,omitempty"` // which of its addresses; "" in the files of old versions
	User     string    `json:"user"`
	Database string    `json:"database"`
	Since    time.Time `json:"since"` // when the session began, by lockkeeper's clock
	Gone     bool      `json:"gone,omitempty"`
}

// processKey tells processes apart: servers number theirs on their own.
type processKey struct {
	address string
	pid     uint32
}

func (x *process) key() processKey { return processKey{x.Address, x.PID} }

// processes notes every server process in a file, so that a lockkeeper that
// was killed leaves a list of those that may go on without it. The file is
// written without fsync: it has to survive lockkeeper, not the machine.
type processes struct {
	now func() time.Time

	mu      sync.Mutex // guards what follows
	file    *os.File   // nil: kept in memory
	path    string
	written int                    // lines since the file was made anew
	keep    bool                   // it is not made anew: somebody else is about to read it
	live    map[processKey]process // of sessions
	lost    map[processKey]process // may go on without a client
	broken  error                  // the first error of the file
}

// maxProcessLines bounds the file: then it is made anew from what is live.
const maxProcessLines = 20_000

// openProcesses reads what an earlier lockkeeper left behind.
func openProcesses(path string, now func() time.Time) (*processes, error) {
	p := &processes{now: now, path: path, live: map[processKey]process{}, lost: map[processKey]process{}}
	if path == "" {
		return p, nil
	}
	if err := readProcesses(path, p.lost); err != nil {
		return nil, err
	}
	return p, p.rewrite()
}

// readProcesses adds those that a file has as not gone.
func readProcesses(path string, lost map[processKey]process) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read server processes: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var x process
		if json.Unmarshal(lines.Bytes(), &x) != nil {
			continue // the last line of a killed process may be cut off
		}
		if x.Gone {
			delete(lost, x.key())
		} else {
			lost[x.key()] = x
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read server processes: %w", err)
	}
	return nil
}

// absorb adds those of another process's file, and removes the file.
func (p *processes) absorb(path string) error {
	theirs := map[processKey]process{}
	if err := readProcesses(path, theirs); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var failed error
	for key, x := range theirs {
		if _, again := p.live[key]; again {
			continue // the process id is used again: theirs is gone
		}
		p.lost[key] = x
		p.append(x)
		failed = errors.Join(failed, p.broken)
	}
	if failed != nil { // their file stays, for the next start
		return fmt.Errorf("note server processes of another process: %w", failed)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget server processes of another process: %w", err)
	}
	return nil
}

// keepFile lets the file only grow from now on.
func (p *processes) keepFile() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep = true
}

// rewrite replaces the file by one that holds what is live or lost.
func (p *processes) rewrite() error {
	tmp := p.path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("note server processes: %w", err)
	}
	if p.file != nil {
		_ = p.file.Close() // replaced
	}
	p.file, p.written = f, 0
	for _, m := range []map[processKey]process{p.lost, p.live} {
		for _, x := range m {
			p.append(x)
		}
	}
	if err := os.Rename(tmp, p.path); err != nil {
		return fmt.Errorf("note server processes: %w", err)
	}
	return p.broken
}

// append writes one line. An error is kept and shown by the barrier.
func (p *processes) append(x process) {
	if p.file == nil {
		return
	}
	line, err := json.Marshal(x)
	if err == nil {
		_, err = p.file.Write(append(line, '\n'))
	}
	p.written++
	p.broken = err
}

// note is the record of one session's server process.
type note struct {
	p *processes
	x process
}

// watch prepares the record of a session.
func (p *processes) watch(c *conn) *note {
	return &note{p: p, x: process{Server: c.target, Address: c.reached.address, User: c.user, Database: c.database, Since: c.connected}}
}

// began is told the server's process id.
func (n *note) began(pid uint32) {
	n.p.mu.Lock()
	defer n.p.mu.Unlock()
	x := n.x
	x.PID = pid
	n.p.live[x.key()] = x
	delete(n.p.lost, x.key()) // a process id that is used again: the old one is gone
	n.p.append(x)
}

// ended is told that the session is over; clean when nothing of it can go on
// in the server.
func (n *note) ended(pid uint32, clean bool) {
	n.p.mu.Lock()
	defer n.p.mu.Unlock()
	key := processKey{n.x.Address, pid}
	x, known := n.p.live[key]
	if !known || x.Since != n.x.Since {
		return
	}
	delete(n.p.live, key)
	if !clean {
		n.p.lost[key] = x
		return
	}
	n.p.forget(x)
}

// forget notes that a process is gone. The mutex is held.
func (p *processes) forget(x process) {
	x.Gone = true
	p.append(x)
	if p.written > maxProcessLines && !p.keep {
		p.broken = p.rewrite()
	}
}

// lostOf returns the processes of a server that may go on without a client.
func (p *processes) lostOf(which func(x *process) bool) []process {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []process
	for _, x := range p.lost {
		if which(&x) {
			out = append(out, x)
		}
	}
	return out
}

func (p *processes) lostCount() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lost)
}

// found is told that lost processes are gone.
func (p *processes) found(gone []process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range gone {
		if p.lost[x.key()].Since.Equal(x.Since) {
			delete(p.lost, x.key())
			p.forget(x)
		}
	}
}

func (p *processes) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file == nil {
		return nil
	}
	f := p.file
	p.file = nil
	return f.Close()
}
