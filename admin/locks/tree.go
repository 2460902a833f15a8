package locks

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// WriteTree draws who blocks whom: each root blocks others and waits for
// nobody; below it are those who wait for it. Processes that only hold or
// want ACCESS EXCLUSIVE follow.
func (s *Snapshot) WriteTree(w io.Writer) {
	t := tree{snap: s, w: w, waiters: map[int32][]*Process{}, drawn: map[int32]bool{}}
	for i := range s.Processes {
		for _, by := range s.Processes[i].BlockedBy {
			t.waiters[by] = append(t.waiters[by], &s.Processes[i])
		}
	}
	for i := range s.Processes {
		if p := &s.Processes[i]; len(p.BlockedBy) == 0 && len(t.waiters[p.PID]) > 0 {
			t.draw(p, "")
		}
	}
	for i := range s.Processes { // in a cycle nobody is a root
		if p := &s.Processes[i]; len(p.BlockedBy) > 0 && !t.drawn[p.PID] {
			t.draw(p, "")
		}
	}
	if len(t.drawn) == 0 {
		fmt.Fprintf(w, "server %s: nobody waits for a lock\n", s.Server)
	}
	for i := range s.Processes {
		if p := &s.Processes[i]; !t.drawn[p.PID] {
			t.line(p, "")
		}
	}
	if s.Truncated {
		fmt.Fprintf(w, "(there were more)\n")
	}
	for _, l := range s.Lacking {
		fmt.Fprintf(w, "not seen: %s\n", l)
	}
}

type tree struct {
	snap    *Snapshot
	w       io.Writer
	waiters map[int32][]*Process
	drawn   map[int32]bool
}

func (t *tree) draw(p *Process, indent string) {
	t.line(p, indent)
	if t.drawn[p.PID] {
		return
	}
	t.drawn[p.PID] = true
	for _, waiter := range t.waiters[p.PID] {
		t.draw(waiter, indent+"  ")
	}
}

func (t *tree) line(p *Process, indent string) {
	arrow := ""
	if indent != "" {
		arrow = "└ "
	}
	fmt.Fprintf(t.w, "%s%s%s\n", indent, arrow, strings.Join(t.words(p), "  "))
}

// words describes a process in one line.
func (t *tree) words(p *Process) []string {
	words := []string{fmt.Sprintf("pid %d", p.PID)}
	add := func(format string, arg string) {
		if arg != "" {
			words = append(words, fmt.Sprintf(format, arg))
		}
	}
	if p.Session != 0 {
		words = append(words, fmt.Sprintf("session %d", p.Session))
	}
	add("%s", strings.TrimSuffix(p.User+"@"+p.Database, "@"))
	add("(%s)", p.Application)
	add("%s", p.State)
	if p.Type != "client backend" {
		add("%s", p.Type)
	}
	if !p.TxSince.IsZero() {
		words = append(words, "transaction "+t.snap.Time.Sub(p.TxSince).Round(time.Second).String())
	}
	add("%s", p.Statement)
	add("[%s]", strings.Join(p.Tags, ", "))
	return append(words, t.snap.locksOf(p.PID)...)
}

// locksOf describes what the process waits for and its ACCESS EXCLUSIVE
// locks; of what else it holds, only what others wait for.
func (s *Snapshot) locksOf(pid int32) []string {
	var words []string
	for i := range s.Locks {
		l := &s.Locks[i]
		if l.PID != pid {
			continue
		}
		on := l.Relation
		if on == "" {
			on = l.Type
		}
		word := ""
		switch {
		case !l.Granted:
			word = "wants " + l.Mode + " on " + on
			if !l.WaitingSince.IsZero() {
				word += " for " + s.Time.Sub(l.WaitingSince).Round(100*time.Millisecond).String()
			}
		case s.wanted(l):
			word = "holds " + l.Mode + " on " + on
		}
		if word != "" && !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	return words
}

// wanted reports whether a lock that is held is ACCESS EXCLUSIVE or stands on
// a relation that somebody waits for.
func (s *Snapshot) wanted(held *Lock) bool {
	if held.Mode == "ACCESS EXCLUSIVE" {
		return true
	}
	for i := range s.Locks {
		l := &s.Locks[i]
		if !l.Granted && l.relationOID == held.relationOID && l.databaseOID == held.databaseOID && l.Relation == held.Relation {
			return true
		}
	}
	return false
}
