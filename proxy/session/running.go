package session

import (
	"time"

	"lockkeeper/inspect"
	"lockkeeper/internal/journal"
)

// Running is what the server works on, as far as it matters to who looks for
// the locks that it waits for.
type Running struct {
	PID   uint32
	Since time.Duration // Host.Elapsed; tells one exchange from the next; zero: nothing that waits for locks

	// Weakest is the weakest mode of a lock that it is not to wait for. Whatever
	// runs is not to wait for one behind which readers or writers queue; DDL for
	// none, for it may hold such locks already.
	Weakest inspect.LockMode

	// Concurrent is set for CREATE INDEX, DROP INDEX and REINDEX CONCURRENTLY:
	// nothing was done before the first lock, which is SHARE UPDATE EXCLUSIVE on
	// the table, and all that they wait for later must be left alone.
	Concurrent bool
}

// Running returns what the server works on.
func (s *Session) Running() Running {
	if !s.auth.done || s.out.Len() == 0 || s.work.query == never {
		return Running{}
	}
	x := Running{PID: s.pid, Since: time.Duration(s.work.busy)}
	for seq := s.out.first; seq < s.out.next; seq++ {
		b := s.behindReply(s.out.at(seq))
		if b == nil {
			continue
		}
		if len(b.Statements) == 0 && b.Why != "" {
			x.Weakest = max(x.Weakest, inspect.Share)
		}
		for i := range b.Statements {
			if !x.add(&b.Statements[i]) {
				return Running{}
			}
		}
	}
	if x.Weakest == inspect.NoLock {
		x.Weakest = inspect.Share
	}
	return x
}

// behindReply returns what a message of the client is about; nil where it is
// about nothing. Parse and Bind wait for locks, too: the server looks up the
// tables of a query there, and may run functions to plan it.
func (s *Session) behindReply(r *reply) *inspect.Batch {
	var v slot
	switch {
	case r.flags&hideBody != 0:
	case r.kind == 'P':
		v = s.prep.of(false).get([]byte(r.its().name))
	case r.kind == 'B':
		v = s.prep.of(true).get([]byte(r.its().name))
	default:
		return r.batch
	}
	if v.seq != r.seq { // the name means something else by now
		return nil
	}
	return v.batch
}

// add takes a statement into account; false where nobody can tell which of
// its waits may be ended.
func (x *Running) add(st *inspect.Statement) bool {
	switch {
	case st.Kind == kindReplication || st.Kind == kindBaseBackup:
		return false
	case st.Concurrently && (st.Kind == "CREATE INDEX" || st.Kind == "DROP INDEX" || st.Kind == "REINDEX"):
		x.Weakest, x.Concurrent = inspect.ShareUpdateExclusive, true
	case st.Concurrently && st.Kind != kindAlterTable:
		return false
	case st.Class == inspect.Session || st.Class == inspect.Control:
	case isDDL(st):
		x.Weakest = max(x.Weakest, inspect.AccessShare)
	default:
		x.Weakest = max(x.Weakest, inspect.Share)
	}
	return true
}

// kindAlterTable is what can be CONCURRENTLY in DETACH PARTITION.
const kindAlterTable inspect.Kind = "ALTER TABLE"

// isDDL reports whether a statement is DDL that locks what it names for good.
// LOCK TABLE may wait for locks as queries take them; and VACUUM, ANALYZE and
// DETACH PARTITION CONCURRENTLY wait for SHARE UPDATE EXCLUSIVE, with which no
// reader or writer conflicts, and hold nothing stronger meanwhile. Source:
// manual, table 13.2 "Conflicting Lock Modes".
func isDDL(st *inspect.Statement) bool {
	switch st.Kind {
	case inspect.KindLockTable, "VACUUM", "ANALYZE":
		return false
	default:
		return st.Class == inspect.Define && !st.Concurrently
	}
}

// LockWait returns the journal's entry about the statement at hand, which has
// waited for a lock on table for too long.
func (s *Session) LockWait(kind journal.Kind, table string) journal.Entry {
	var b *inspect.Batch
	for seq := s.out.first; seq < s.out.next && b == nil; seq++ {
		b = s.behindReply(s.out.at(seq))
	}
	e := s.entry(kind, b)
	e.Tables = []string{table}
	return e
}
