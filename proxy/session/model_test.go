package session

import (
	"bytes"
	"encoding/binary"
	"strings"

	"lockkeeper/inspect"
	"lockkeeper/proxy/wire"
)

// model is a server as the protocol describes it, for texts of a small
// language of its own: statements separated by semicolons, see run. Sources:
// manual, chapter 55; src/backend/tcop/postgres.c.
type model struct {
	in  []byte // not worked on yet
	out []byte // everything that was ever sent

	status     byte
	reported   byte // status of the last ReadyForQuery
	skipping   bool // ignore_till_sync
	dead       bool
	copying    bool
	extended   bool     // the COPY came by Execute
	rest       []string // statements of a Query behind the COPY
	statements map[string]string
	portals    map[string]*portal
}

type portal struct {
	text string
	rows int // sent
}

func newModel() *model {
	m := &model{status: 'I', statements: map[string]string{}, portals: map[string]*portal{}}
	m.send('R', "\x00\x00\x00\x00")
	m.send('S', "client_encoding\x00UTF8\x00")
	m.send('S', "standard_conforming_strings\x00on\x00")
	m.send('K', "\x00\x00\x12\x34key.")
	m.ready()
	return m
}

func (m *model) send(kind byte, parts ...string) { m.out = wire.Append(m.out, kind, parts...) }

func (m *model) ready() {
	m.reported = m.status
	m.send('Z', string([]byte{m.status}))
}

func (m *model) complain(code string) {
	m.send('E', "SERROR\x00VERROR\x00C", code, "\x00Mwrong\x00P3\x00\x00")
}

// fail is an error in a statement.
func (m *model) fail(code string) {
	m.complain(code)
	if m.status == 'T' {
		m.status = 'E'
	}
	if m.status == 'I' {
		m.portals = map[string]*portal{}
	}
}

func (m *model) die(code string) {
	m.send('E', "SFATAL\x00VFATAL\x00C", code, "\x00Mwrong\x00\x00")
	m.dead, m.in = true, nil
}

// step works on one message and reports whether there was one.
func (m *model) step() bool {
	if m.dead {
		m.in = nil
		return false
	}
	if len(m.in) == 0 {
		return false
	}
	size := wire.Size(m.in)
	switch {
	case !known(m.in[0], 0):
		m.die("08P01")
		return true
	case size < 0 || !known(m.in[0], size):
		m.dead, m.in = true, nil
		return true
	case m.copying && !strings.ContainsRune("dcfHS", rune(m.in[0])):
		m.complain("08P01")
		m.die("08P01")
		return true
	case size == 0 || len(m.in) < size:
		return false
	}
	msg := wire.Message(m.in[:size])
	m.in = m.in[size:]
	m.message(msg)
	return true
}

func (m *model) message(msg wire.Message) {
	if m.copying {
		m.copyData(msg)
		return
	}
	t, body := msg.Type(), msg.Body()
	if t == 'p' { // SocketBackend knows no such type
		m.die("08P01")
		return
	}
	if m.skipping && t != 'S' && t != 'X' {
		return
	}
	switch t {
	case 'Q':
		m.query(body)
	case 'P':
		m.parse(body)
	case 'B':
		m.bind(body)
	case 'D':
		m.describe(body)
	case 'E':
		m.execute(body)
	case 'C':
		m.closeName(body)
	case 'S':
		m.skipping = false
		m.endImplicit()
		m.ready()
	case 'F':
		m.functionCall(body)
	case 'X':
		m.dead, m.in = true, nil
	}
}

// inExtended is an error in the extended protocol.
func (m *model) inExtended(code string) {
	m.fail(code)
	m.skipping = true
}

func (m *model) endImplicit() {
	if m.status == 'I' {
		m.portals = map[string]*portal{}
	}
}

func (m *model) query(body []byte) {
	delete(m.statements, "")
	delete(m.portals, "")
	text, _, ok := wire.CString(body)
	if !ok {
		m.fail("08P01")
		m.ready()
		return
	}
	m.endOfCopy(split(string(text)), true)
}

// endOfCopy runs what is left of a Query.
func (m *model) endOfCopy(parts []string, first bool) {
	if first && len(parts) == 0 {
		m.send('I')
	}
	for i, p := range parts {
		switch m.run(p) {
		case failed:
			m.endImplicit()
			m.ready()
			return
		case copies:
			m.copying, m.extended, m.rest = true, false, parts[i+1:]
			return
		case done:
		}
	}
	m.endImplicit()
	m.ready()
}

type result int

const (
	done result = iota
	failed
	copies
)

// run runs one statement: s (rows), i (insert), e (error), b, c, r (transaction
// control), w (COPY FROM STDIN), x (one that fails before it reads), o (COPY
// TO), p NAME, x NAME (PREPARE, EXECUTE), d NAME (DEALLOCATE), D (DISCARD ALL),
// l, u (SET client_encoding), ? (anything else: a syntax error).
func (m *model) run(p string) result {
	word, name, _ := strings.Cut(p, " ")
	if m.status == 'E' && word != "c" && word != "r" {
		m.fail("25P02")
		return failed
	}
	switch word {
	case "s":
		m.send('T', "\x00\x00")
		m.send('D', "\x00\x00")
		m.send('D', "\x00\x00")
		m.send('C', "SELECT 2\x00")
	case "i":
		m.send('C', "INSERT 0 1\x00")
	case "n":
		m.send('N', "SNOTICE\x00VNOTICE\x00C00000\x00Mhello\x00\x00")
		m.send('C', "DO\x00")
	case "b":
		m.status = 'T'
		m.send('C', "BEGIN\x00")
	case "c", "r":
		tag := "ROLLBACK\x00"
		if word == "c" && m.status != 'E' {
			tag = "COMMIT\x00"
		}
		m.status, m.portals = 'I', map[string]*portal{}
		m.send('C', tag)
	case "w":
		m.send('G', "\x00\x00\x00")
		return copies
	case "y":
		m.send('G', "\x00\x00\x00")
		m.fail("42809")
		return failed
	case "o":
		m.send('H', "\x00\x00\x00")
		m.send('d', "a row\n")
		m.send('c')
		m.send('C', "COPY 1\x00")
	case "p":
		if _, there := m.statements[name]; there {
			m.fail("42P05")
			return failed
		}
		m.statements[name] = "s"
		m.send('C', "PREPARE\x00")
	case "x":
		text, there := m.statements[name]
		if !there {
			m.fail("26000")
			return failed
		}
		if len(split(text)) == 0 {
			m.send('C', "EXECUTE\x00")
			return done
		}
		if !strings.Contains("sino", split(text)[0]) { // not everything can be run by EXECUTE
			m.fail("42601")
			return failed
		}
		return m.run(split(text)[0])
	case "d":
		if _, there := m.statements[name]; !there {
			m.fail("26000")
			return failed
		}
		delete(m.statements, name)
		m.send('C', "DEALLOCATE\x00")
	case "D":
		if m.status != 'I' {
			m.fail("25001")
			return failed
		}
		m.statements = map[string]string{}
		m.send('C', "DISCARD ALL\x00")
	case "l", "u":
		m.send('C', "SET\x00")
		m.send('S', "client_encoding\x00"+map[string]string{"l": "LATIN1", "u": "UTF8"}[word]+"\x00")
	default:
		m.fail("42601")
		return failed
	}
	return done
}

func split(text string) []string {
	var out []string
	for _, p := range strings.Split(text, ";") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out
}

// leaves reports whether a text may run in an aborted transaction.
func leaves(text string) bool { return text == "c" || text == "r" }

func (m *model) parse(body []byte) {
	name, rest, ok := wire.CString(body)
	text, rest, ok2 := wire.CString(rest)
	if !ok || !ok2 || len(rest) != 2 {
		m.inExtended("08P01")
		return
	}
	if len(name) == 0 {
		delete(m.statements, "")
	}
	parts := split(string(text))
	_, there := m.statements[string(name)]
	switch {
	case len(parts) > 1, len(parts) == 1 && kindOf(parts[0]) == "":
		m.inExtended("42601")
	case m.status == 'E' && len(parts) > 0 && !leaves(parts[0]):
		m.inExtended("25P02")
	case there:
		m.inExtended("42P05")
	default:
		m.statements[string(name)] = string(text)
		m.send('1')
	}
}

func (m *model) bind(body []byte) {
	name, rest, ok := wire.CString(body)
	stmt, rest, ok2 := wire.CString(rest)
	if !ok || !ok2 || len(rest) < 6 {
		m.inExtended("08P01")
		return
	}
	text, there := m.statements[string(stmt)]
	_, taken := m.portals[string(name)]
	switch {
	case !there:
		m.inExtended("26000")
	case m.status == 'E' && text != "" && !leaves(text):
		m.inExtended("25P02")
	case taken && len(name) > 0:
		m.inExtended("42P03")
	default:
		m.portals[string(name)] = &portal{text: text}
		m.send('2')
	}
}

func (m *model) describe(body []byte) {
	if len(body) < 2 {
		m.inExtended("08P01")
		return
	}
	name := stringOf(body[1:])
	text, there := m.statements[string(name)]
	if body[0] == 'P' {
		var p *portal
		if p, there = m.portals[string(name)]; there {
			text = p.text
		}
	}
	switch {
	case !there:
		m.inExtended("26000")
		return
	case m.status == 'E' && text == "s":
		m.inExtended("25P02")
		return
	case body[0] == 'S':
		m.send('t', "\x00\x00")
	}
	if text == "s" {
		m.send('T', "\x00\x00")
	} else {
		m.send('n')
	}
}

func (m *model) execute(body []byte) {
	name, rest, ok := wire.CString(body)
	p := m.portals[string(name)]
	if !ok || len(rest) != 4 {
		m.inExtended("08P01")
		return
	}
	if p == nil {
		m.inExtended("34000")
		return
	}
	parts := split(p.text)
	limit := int(binary.BigEndian.Uint32(rest))
	switch {
	case len(parts) == 0:
		m.send('I')
	case m.status == 'E' && !leaves(parts[0]):
		m.inExtended("25P02")
	case parts[0] == "s":
		for n := 0; p.rows < 2; n++ {
			if limit > 0 && n == limit {
				m.send('s')
				return
			}
			p.rows++
			m.send('D', "\x00\x00")
		}
		m.send('C', "SELECT 2\x00")
	default:
		at := len(m.out)
		switch m.run(parts[0]) {
		case failed:
			m.skipping = true
		case copies:
			m.copying, m.extended = true, true
		case done: // Execute does not describe
			m.out = append(m.out[:at], withoutRowDescription(m.out[at:])...)
		}
	}
}

func withoutRowDescription(b []byte) []byte {
	if len(b) > 0 && b[0] == 'T' {
		return bytes.Clone(b[7:])
	}
	return bytes.Clone(b)
}

func (m *model) closeName(body []byte) {
	if len(body) < 2 || body[0] != 'S' && body[0] != 'P' {
		m.inExtended("08P01")
		return
	}
	if name := string(stringOf(body[1:])); body[0] == 'S' {
		delete(m.statements, name)
	} else {
		delete(m.portals, name)
	}
	m.send('3')
}

func (m *model) functionCall(body []byte) {
	switch {
	case m.status == 'E':
		m.fail("25P02")
	case len(body) > 0 && body[0] == 1:
		m.fail("42883")
	default:
		m.send('V', "\xff\xff\xff\xff")
	}
	m.endImplicit()
	m.ready()
}

func (m *model) copyData(msg wire.Message) {
	switch msg.Type() {
	case 'd':
		if string(msg.Body()) == "bad" {
			m.endCopy("22P02")
		}
	case 'f':
		m.endCopy("57014")
	case 'c':
		m.copying = false
		m.send('C', "COPY 1\x00")
		if !m.extended {
			m.endOfCopy(m.rest, false)
		}
	}
}

func (m *model) endCopy(code string) {
	m.copying = false
	if m.extended {
		m.inExtended(code)
		return
	}
	m.fail(code)
	m.endImplicit()
	m.ready()
}

// kindOf names the kind of a statement of the model; "" is a syntax error.
func kindOf(p string) inspect.Kind {
	word, name, _ := strings.Cut(p, " ")
	switch word {
	case "s":
		return inspect.KindSelect
	case "i":
		return inspect.KindInsert
	case "n":
		return inspect.KindDo
	case "b":
		return inspect.KindBegin
	case "c":
		return inspect.KindCommit
	case "r":
		return inspect.KindRollback
	case "w", "y":
		return inspect.KindCopyFrom
	case "o":
		return inspect.KindCopyTo
	case "D":
		return inspect.KindDiscard
	case "l", "u":
		return inspect.KindSet
	}
	if name == "" {
		return ""
	}
	return map[string]inspect.Kind{"p": inspect.KindPrepare, "x": inspect.KindExecute, "d": inspect.KindDeallocate}[word]
}

// batchOf is what inspect would say of a text of the model.
func batchOf(text string) *inspect.Batch {
	b := &inspect.Batch{Class: inspect.Read}
	for _, p := range split(text) {
		st := inspect.Statement{Class: inspect.Session, Kind: kindOf(p)}
		_, st.Name, _ = strings.Cut(p, " ")
		switch st.Kind {
		case "":
			return inspect.NewUnknown("syntax error", nil)
		case inspect.KindSelect, inspect.KindCopyTo:
			st.Class = inspect.Read
		case inspect.KindInsert, inspect.KindCopyFrom:
			st.Class = inspect.Write
		case inspect.KindDo:
			st.Class = inspect.Unknown
		case inspect.KindExecute:
			st.Class, st.Hidden = inspect.Unknown, inspect.HiddenPrepared
		case inspect.KindBegin, inspect.KindCommit, inspect.KindRollback:
			st.Class = inspect.Control
		case inspect.KindPrepare:
			st.Prepared = &batchOf("s").Statements[0]
		case inspect.KindSet:
			st.Set = &inspect.Setting{Name: "client_encoding"}
		case inspect.KindDiscard:
			st.NoBlock = true
		}
		b.Class = inspect.Worse(b.Class, st.Class)
		b.Statements = append(b.Statements, st)
	}
	return b
}
