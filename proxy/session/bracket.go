package session

import (
	"strconv"
	"strings"
	"time"

	"lockkeeper/inspect"
	"lockkeeper/policy"
	"lockkeeper/proxy/wire"
)

// timeout is one setting that a bracket lowers.
type timeout struct {
	name string
	want time.Duration
	have string // as SHOW printed it
}

// timeouts lists what the obligations ask for, in a fixed order.
func timeouts(o *policy.Obligations) []timeout {
	var out []timeout
	if o.LockTimeout > 0 {
		out = append(out, timeout{name: "lock_timeout", want: o.LockTimeout})
	}
	if o.StatementTimeout > 0 {
		out = append(out, timeout{name: "statement_timeout", want: o.StatementTimeout})
	}
	return out
}

// bracketed reports whether a statement gets timeouts of ours: one that waits
// for locks and can give up, or DDL that does not say which it takes.
func bracketed(st *inspect.Statement) bool {
	for i := range st.Relations {
		if st.WaitsFor(&st.Relations[i]) {
			return true
		}
	}
	return len(st.Relations) == 0 && st.Class == inspect.Define && !st.Concurrently
}

func anyBracketed(b *inspect.Batch) (some, alone bool) {
	for i := range b.Statements {
		some = some || bracketed(&b.Statements[i])
	}
	return some, some && len(b.Statements) == 1 && b.Statements[0].NoBlock
}

// bracketQuery surrounds the DDL in a Query with settings of ours. They travel
// in the client's text, directly before and behind each statement, so that it
// stays one message and one implicit transaction; only what cannot run in a
// transaction block gets session settings around the message.
func (s *Session) bracketQuery(q *query) (action, bool) {
	some, alone := anyBracketed(q.batch)
	if !some || s.out.Len() == 0 && s.status() == policy.TxAborted {
		return forward, true
	}
	if s.out.Len() > 0 {
		return s.waitReplies(), false
	}
	if alone {
		if s.status() != policy.TxIdle {
			return forward, true // the server refuses it
		}
		return s.setForSession(timeouts(&q.d.Obligations), ours|showError|leads)
	}
	if q.batch.Statements[0].Kind == inspect.KindLockTable && len(q.batch.Statements) == 1 && s.status() == policy.TxIdle {
		return forward, true // fails outside a transaction block, and must go on failing
	}
	want := timeouts(&q.d.Obligations)
	if s.head.stage == stageNew {
		s.head.stage = stageAsked
		s.answers = s.answers[:0]
		s.ourQuery(showAll(want), ours|wantRow|showError|leads)
		return s.waitReplies(), false
	}
	if len(s.answers) != len(want) {
		return forward, true // an error, which the client has
	}
	for i := range want {
		want[i].have = s.answers[i]
	}
	q.inserts = brackets(q.batch, want, len(q.text))
	return forward, true
}

// showAll asks for settings. SHOW takes no snapshot and its names cannot be
// shadowed.
func showAll(settings []timeout) string {
	var b strings.Builder
	for i := range settings {
		b.WriteString("SHOW " + settings[i].name + ";")
	}
	return b.String()
}

// brackets returns what goes into a text around each statement that takes
// locks. Values that the text itself sets on the way are followed, so that its
// own lower value stays and its own higher value comes back.
func brackets(b *inspect.Batch, settings []timeout, length int) []insert {
	if b.NoPositions { // around the whole text
		set, back, k := setLocal(settings)
		if k == 0 {
			return nil
		}
		return []insert{{at: 0, text: set, statements: k}, {at: length, text: "\n;" + back, before: len(b.Statements), statements: k}}
	}
	var out []insert
	for i := range b.Statements {
		st := &b.Statements[i]
		follow(settings, st.Set)
		if !bracketed(st) || st.NoBlock {
			continue
		}
		set, back, n := setLocal(settings)
		if n == 0 {
			continue
		}
		out = append(out, insert{at: st.Start, text: set, before: i, statements: n})
		end := st.Start + st.Len
		if st.Len == 0 {
			end = length
		}
		out = append(out, insert{at: end, text: "\n;" + back, before: i + 1, statements: n})
	}
	return out
}

// follow takes note of a setting that the client's own text changes.
func follow(settings []timeout, set *inspect.Setting) {
	if set == nil {
		return
	}
	for i := range settings {
		switch {
		case set.Name != settings[i].name && set.Name != "all":
		case set.Reset || set.Name == "all":
			settings[i].have = "DEFAULT"
		default:
			settings[i].have = set.Value
		}
	}
}

// setLocal returns the statements that lower settings and put them back, and
// how many there are of each.
func setLocal(settings []timeout) (set, back string, n int) {
	for i := range settings {
		t := &settings[i]
		have, _ := parseTimeout(t.have)
		d, changed := lower(have, t.want)
		if !changed {
			continue
		}
		set += "SET LOCAL " + t.name + " = '" + formatTimeout(d) + "';"
		back += "SET LOCAL " + t.name + " = " + value(t.have) + ";"
		n++
	}
	return set, strings.TrimSuffix(back, ";"), n
}

// value writes a setting's old value as SET takes it.
func value(have string) string {
	if have == "DEFAULT" {
		return have
	}
	if _, ok := parseTimeout(have); !ok {
		return "DEFAULT"
	}
	return "'" + have + "'"
}

// restoring is session settings of ours that have to be put back after the
// message at hand.
type restoring struct {
	texts    []string
	attempts int
}

// maxRestores bounds how often restoring is tried before the session is closed.
const maxRestores = 3

// setForSession lowers session settings for a statement that cannot run in a
// transaction block. Nothing may be owed. The old values come from
// pg_settings, which also tells whether RESET gives them back. flags go to what
// is sent, which is in the extended protocol: a Query would destroy the client's
// unnamed statement.
func (s *Session) setForSession(want []timeout, flags flag) (action, bool) {
	switch s.head.stage {
	case stageNew:
		s.head.stage = stageAsked
		s.answers = s.answers[:0]
		ask := make([]string, 0, len(want))
		for i := range want {
			ask = append(ask, "SELECT pg_catalog.concat(source, ' ', setting) FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) '"+want[i].name+"'")
		}
		s.ourExchange(ask, flags|wantRow)
		return s.waitReplies(), false
	case stageAsked:
		if len(s.answers) != len(want) {
			return forward, true // no such setting: an older server
		}
		s.head.stage = stageSet
		set, back := sessionSettings(want, s.answers)
		if len(set) == 0 {
			return forward, true
		}
		s.settings = &restoring{texts: back}
		s.ourExchange(set, flags)
		return s.waitReplies(), false
	case stageSet:
	}
	return forward, true
}

// sessionSettings returns the texts that lower settings for the session and
// put them back. answers are "source value", the value in milliseconds.
func sessionSettings(want []timeout, answers []string) (set, back []string) {
	for i := range want {
		source, old, _ := strings.Cut(answers[i], " ")
		have, _ := parseTimeout(old)
		d, changed := lower(have, want[i].want)
		if !changed {
			continue
		}
		set = append(set, "SET "+want[i].name+" = '"+formatTimeout(d)+"'")
		if source == "session" {
			back = append(back, "SET "+want[i].name+" = '"+old+"'")
		} else {
			back = append(back, "RESET "+want[i].name)
		}
	}
	return set, back
}

// restoreSettings puts session settings back behind the message that was just
// sent: its ReadyForQuery is swallowed, the client sees that of the restoring.
func (s *Session) restoreSettings() {
	if s.settings == nil || s.out.Len() == 0 {
		return
	}
	s.out.at(s.out.next - 1).flags |= hideReady
	s.sendRestore()
}

// restoring reports whether settings are being put back. No message of the
// client may begin meanwhile: another try could not be sent in the middle of it.
func (s *Session) restoring() bool {
	return s.settings != nil && s.settings.attempts > 0 && s.out.Len() > 0
}

func (s *Session) sendRestore() {
	s.settings.attempts++
	s.ourExchange(s.settings.texts, hideBody|restore)
}

// ourExchange sends statements of ours and a Sync, in a transaction of their
// own. flags go to their Executes and to the Sync.
func (s *Session) ourExchange(texts []string, flags flag) {
	for _, text := range texts {
		s.ourStatement(text, flags&^hideReady)
	}
	s.out.push('S', flags)
	s.ToServer.Forward(syncMessage)
}

// ourStatement sends one statement of ours in the extended protocol: named, so
// that the client's unnamed statement and portal stay, and closed at once.
// flags go to its Execute.
func (s *Session) ourStatement(text string, flags flag) {
	s.names++
	name := ourName(s.names)
	buf := wire.Append(make([]byte, 0, 128+len(text)+4*len(name)), 'P', name, "\x00", text, "\x00\x00\x00")
	buf = wire.Append(buf, 'B', name, "\x00", name, "\x00\x00\x00\x00\x00\x00\x00")
	buf = wire.Append(buf, 'E', name, "\x00\x00\x00\x00\x00")
	buf = wire.Append(buf, 'C', "P", name, "\x00")
	buf = wire.Append(buf, 'C', "S", name, "\x00")
	for _, kind := range []byte{'P', 'B', 'E', 'C', 'C'} {
		r := s.out.push(kind, hideBody|flags&(showError|leads|restore))
		if kind == 'E' {
			r.flags |= flags
			s.noteEpoch(r)
		}
		if kind == 'C' {
			r.rare().name = name
		}
	}
	if flags&awaited != 0 {
		s.awaiting++
	}
	s.ToServer.Forward(buf)
}

// closeLeftovers closes statements of ours whose Close an error has skipped.
func (s *Session) closeLeftovers() {
	if len(s.leftover) == 0 || s.out.skipping {
		return
	}
	var buf []byte
	for _, name := range s.leftover {
		buf = wire.Append(buf, 'C', "S", name, "\x00")
		s.out.push('C', hideBody).rare().name = name
	}
	s.leftover = s.leftover[:0]
	s.ToServer.Forward(buf)
}

// ourName names a statement and portal of ours.
func ourName(n uint64) string {
	return "lockkeeper_" + strconv.FormatUint(n, 36)
}
