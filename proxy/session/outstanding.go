package session

import (
	"lockkeeper/inspect"
	"lockkeeper/policy"
)

// flag says how the answer to one message is treated.
type flag uint16

const (
	hideBody  flag = 1 << iota // ours: everything but ReadyForQuery is swallowed
	hideReady                  // its ReadyForQuery is swallowed: one of ours follows and ends the exchange
	showError                  // ours, but an error of it is the client's
	refuse                     // a substitute: its error is replaced by the refusal
	wantRow                    // ours: the first column of each row is an answer
	restore                    // ours: puts session settings back; repeated when it fails
	readOnly                   // runs in a transaction that we made READ ONLY
	arms                       // ours: its success makes the transaction READ ONLY
	leads                      // ours, before the client's message: when it fails its answer is the client's
	awaited                    // ours: the client's message waits for it
	plans                      // Bind: what it plans may change something already then
	ends                       // Sync and Query: ends an implicit transaction that may have written
	reads                      // Query and Execute: only reads
	begins                     // with arms: stands directly behind what has begun the transaction; alone: begins one behind a fence

	ours = hideBody | hideReady
)

// reply is one answer that the server owes, for one message that it was sent. It
// fits a line of the processor's cache.
type reply struct {
	kind    byte // type of the message: 'Q', 'P', 'B', 'D', 'E', 'C', 'S', 'F'; 'c' marks the end of COPY data; 'A' is the login
	portal  bool // Close: of a portal
	flags   flag
	done    bool // Query, FunctionCall: an end (CommandComplete, EmptyQueryResponse, error, result) was seen
	fail    bool // an error was seen
	copied  bool // CopyInResponse was seen, and not yet the COPY's end
	renames bool // batch may give or take names of statements
	part    int  // Query: CommandCompletes seen, ours included

	seq   uint64
	batch *inspect.Batch // Query and Execute: what runs
	began moment         // Query and Execute
	old   slot           // Parse, Bind and Close: what the name stood for before
	few   *rarities
}

// rarities are what few replies have; nil where there is none of them.
type rarities struct {
	edit    *edit             // Query: where we put text of ours into the client's
	refusal *policy.Refusal   // with refuse
	rule    string            // with refuse: for the journal
	throt   []policy.Throttle // Query and Execute: what is charged with the rows written
	epoch   uint64            // with begins: of the transaction that it begins
	name    string            // Parse, Bind and Close: what to put back when it fails; ours: what to close
}

// rare returns what few replies have, to be written.
func (r *reply) rare() *rarities {
	if r.few == nil {
		r.few = &rarities{}
	}
	return r.few
}

// none is what most replies have of it; never written to.
var none rarities

// its returns what few replies have, to be read.
func (r *reply) its() *rarities {
	if r.few == nil {
		return &none
	}
	return r.few
}

// mayWrite reports whether the message is the client's and runs something that
// is journalled.
func (r *reply) mayWrite() bool {
	if r.batch == nil || r.flags&hideBody != 0 {
		return false
	}
	if r.batch.Class == inspect.Unknown {
		return true
	}
	for i := range r.batch.Statements {
		if r.batch.Statements[i].MayWrite() {
			return true
		}
	}
	return false
}

// names reports whether the message gives or takes the name of a statement, or
// of a portal.
func (r *reply) names(portals bool) bool {
	switch {
	case r.flags&hideBody != 0:
		return false
	case r.kind == 'C':
		return r.portal == portals
	case portals:
		return r.kind == 'B'
	default:
		return r.kind == 'P'
	}
}

// Outstanding is the list of replies still owed, oldest first. It alone says
// what the client receives next. Bounded by maxOutstanding.
type Outstanding struct {
	ring  []reply // length is a power of two; what is not owed is zero
	first uint64  // sequence number of the oldest
	next  uint64  // sequence number of the next one pushed

	boundary   uint64 // sequence number of the youngest Sync, Query or FunctionCall pushed, plus one
	boundaries int32  // how many of them are owed
	renamers   int32  // how many replies are owed that may give or take names of statements
	slack      int    // Syncs inside COPY data, as many as a client likes: ReadyForQuery may or may not follow
	skipping   bool   // the server discards everything until the Sync that is still to be sent
	slackEnd   uint64 // sequence number of the first reply behind the youngest of the slack
}

// passed is the kind of a reply that is not owed any more.
const passed = '-'

// maxOutstanding bounds the replies owed to one session; then the client is
// not read until the server has answered. The server answers when its output
// buffer of 8 kB is full, so that this many cannot wait for a Sync.
const maxOutstanding = 1 << 14

// Len returns how many replies are owed.
func (o *Outstanding) Len() int { return int(o.next - o.first) } // never above maxOutstanding and a bracket's few

// Full reports whether the client has to wait.
func (o *Outstanding) Full() bool { return o.Len() >= maxOutstanding }

// head returns the oldest reply; nil when none is owed.
func (o *Outstanding) head() *reply {
	if o.first == o.next {
		return nil
	}
	return o.at(o.first)
}

func (o *Outstanding) at(seq uint64) *reply { return &o.ring[seq&uint64(len(o.ring)-1)] }

// push appends a reply and returns it; nil when the server will discard the
// message anyway.
func (o *Outstanding) push(kind byte, flags flag) *reply {
	if o.skipping {
		if kind != 'S' {
			return nil
		}
		o.skipping = false
	}
	if o.Len() == len(o.ring) {
		o.grow()
	}
	r := o.at(o.next) // it is zero
	r.kind, r.flags, r.seq = kind, flags, o.next
	o.next++
	if isBoundary(kind) {
		o.boundary = o.next
		o.boundaries++
	}
	return r
}

func (o *Outstanding) grow() {
	bigger := make([]reply, max(8, 2*len(o.ring)))
	for seq := o.first; seq < o.next; seq++ {
		bigger[seq&uint64(len(bigger)-1)] = *o.at(seq)
	}
	o.ring = bigger
}

// runs notes what the message behind a reply runs.
func (o *Outstanding) runs(r *reply, b *inspect.Batch) {
	r.batch = b
	if onlyReads(b) {
		r.flags |= reads
		return
	}
	if renames(b) || preparesUnseen(b) {
		r.renames = true
		o.renamers++
	}
}

// isBoundary reports whether ReadyForQuery answers the message.
func isBoundary(kind byte) bool { return kind == 'S' || kind == 'Q' || kind == 'F' || kind == 'A' }

// pop removes the oldest reply and every mark behind it.
func (o *Outstanding) pop() {
	o.drop()
	for o.first < o.next {
		if k := o.at(o.first).kind; k != 'c' && k != passed {
			return
		}
		o.drop()
	}
}

func (o *Outstanding) drop() {
	r := o.at(o.first)
	if isBoundary(r.kind) {
		o.boundaries--
	}
	if r.renames {
		o.renamers--
	}
	*r = reply{}
	o.first++
}

// skip drops what the server discards after an error in the extended protocol:
// all replies before the next Sync, youngest first through undo, so that names
// go back to what they meant. Without a Sync it waits for one. Source: manual,
// 55.2.3 "Extended Query", ignore_till_sync in src/backend/tcop/postgres.c.
func (o *Outstanding) skip(undo func(*reply)) {
	end := o.first
	for end < o.next && o.at(end).kind != 'S' {
		end++
	}
	for seq := end; seq > o.first; seq-- {
		undo(o.at(seq - 1))
	}
	for o.first < end {
		o.drop()
	}
	if o.first == o.next {
		o.skipping = true
	}
}

// copyIn is told that the oldest reply turned into COPY FROM STDIN. The server
// takes no notice of a Sync or Flush before CopyDone, so Syncs sent before it
// are owed nothing, unless the COPY fails early: that is the slack. It reports
// whether the end of the data was sent already, and whether something else was
// that the COPY will not bear. Source: CopyGetData in
// src/backend/commands/copyfromparse.c.
func (o *Outstanding) copyIn() (ended, early bool) {
	for seq := o.first + 1; seq < o.next; seq++ {
		switch r := o.at(seq); r.kind {
		case passed:
		case 'S':
			r.kind = passed
			o.boundaries--
			o.slack, o.slackEnd = o.slack+1, seq+1
		case 'c':
			r.kind = passed // this COPY's own: the text may hold another
			return true, false
		default:
			return false, true
		}
	}
	return false, false
}

// passedBy reports, while the server reads COPY data for the oldest reply,
// whether a message was sent behind it that no COPY bears. copyIn has looked at
// what was sent before; what was sent since can only be at the end.
func (o *Outstanding) passedBy() bool { return o.Len() > 1 && o.at(o.next-1).kind != passed }

// passOver notes a Sync that is sent while the server reads COPY data.
func (o *Outstanding) passOver() { o.slack, o.slackEnd = o.slack+1, o.next }

// answering is told, while there is slack, that the server begins to answer the
// message of h: Syncs sent before it have had their ReadyForQuery or never will.
func (o *Outstanding) answering(h *reply) {
	if h.seq >= o.slackEnd {
		o.slack = 0
	}
}

// uncertain reports, while the oldest reply is an error in COPY data, whether
// the server may run what stands behind it: it discards that up to the next
// Sync, unless a Sync inside the data was the next one.
func (o *Outstanding) uncertain() bool {
	h := o.head()
	if o.slack == 0 || isBoundary(h.kind) {
		return false
	}
	for seq := o.first + 1; seq < o.next; seq++ {
		if k := o.at(seq).kind; k != 'c' && k != passed {
			return k != 'S'
		}
	}
	return false
}

// ready is told of a ReadyForQuery and returns the reply that it ends, which
// stays the oldest; nil when it answers a Sync inside COPY data.
func (o *Outstanding) ready() *reply {
	h := o.head()
	if o.slack > 0 && (h == nil || !isBoundary(h.kind) || h.kind != 'S' && !h.done) {
		o.slack--
		return nil
	}
	for h != nil && !isBoundary(h.kind) { // cannot be: be in step again at the next boundary
		o.pop()
		h = o.head()
	}
	return h
}
