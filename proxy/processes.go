package proxy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
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
	live    map[processKey]*conn   // of sessions
	lost    map[processKey]process // may go on without a client
	size    int64                  // of the file, up to the end of the last line
	broken  error                  // why the file lacks something that is live or lost
}

// maxProcessLines bounds the file: then it is made anew from what is live.
const maxProcessLines = 20_000

// openProcesses reads what an earlier lockkeeper left behind.
func openProcesses(path string, now func() time.Time) (*processes, error) {
	p := &processes{now: now, path: path, live: map[processKey]*conn{}, lost: map[processKey]process{}}
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
	old := p.file
	before, written := p.size, p.written
	p.file, p.size, p.written = f, 0, 0
	if err = p.write(p.all()); err == nil {
		err = os.Rename(tmp, p.path)
	}
	if err != nil { // the old one has all that it had
		p.file, p.size, p.written = old, before, written
		return fmt.Errorf("note server processes: %w", errors.Join(err, f.Close()))
	}
	if old != nil {
		_ = old.Close() // replaced
	}
	return nil
}

// all returns what the file has to hold. The mutex is held.
func (p *processes) all() []process {
	all := slices.Collect(maps.Values(p.lost))
	for key, c := range p.live {
		all = append(all, c.process(key.pid))
	}
	return all
}

// append notes one process, and what could not be noted before it.
func (p *processes) append(x process) {
	if p.file == nil {
		return
	}
	lines := []process{x}
	if p.broken != nil {
		lines = append(p.all(), x)
	}
	p.broken = p.write(lines)
}

// write writes lines at the end of the file, all of them or none: the rest of a
// line that a full disk has cut off would take the next one with it.
func (p *processes) write(lines []process) error {
	var b bytes.Buffer
	to := json.NewEncoder(&b)
	for i := range lines {
		if err := to.Encode(&lines[i]); err != nil {
			return err
		}
	}
	n, err := p.file.Write(b.Bytes())
	if err != nil {
		return errors.Join(err, p.file.Truncate(p.size))
	}
	p.size += int64(n)
	p.written += len(lines)
	return nil
}

// failure returns why not every server process is noted; nil when all are.
func (p *processes) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken
}

// process is the record of a session's server process.
func (c *conn) process(pid uint32) process {
	return process{PID: pid, Server: c.target, Address: c.reached.Value().address, User: c.user, Database: c.database, Since: c.connected}
}

// began is told the process id of a session's server.
func (p *processes) began(c *conn, pid uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := c.process(pid)
	p.live[x.key()] = c
	delete(p.lost, x.key()) // a process id that is used again: the old one is gone
	p.append(x)
}

// ended is told that a session is over; clean when nothing of it can go on in
// the server.
func (p *processes) ended(c *conn, pid uint32, clean bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := c.process(pid)
	if p.live[x.key()] != c {
		return
	}
	delete(p.live, x.key())
	if !clean {
		p.lost[x.key()] = x
		return
	}
	p.forget(x)
}

// forget notes that a process is gone. The mutex is held.
func (p *processes) forget(x process) {
	x.Gone = true
	p.append(x)
	if p.written > maxProcessLines && !p.keep && p.rewrite() == nil { // else it goes on growing
		p.broken = nil
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
