package proxy_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"lockkeeper/policy"
	"lockkeeper/proxy/wire"
)

// A refusal is a server error at every position. The oracle is the server: in
// its own run the refused statement is one that fails in it, at the same step.
// Everything else is the same, and so must be every reply, then and later.
// LOCKKEEPER_TEST_ALL=1 plays all of the four thousand pipelines.
func TestARefusalAtEveryPosition(t *testing.T) {
	g := newGuard(t, refusesDeleteAndCopy)
	before := g.rowsLeft()
	through := &positions{g: g, c: loginRaw(t, g.addr, g.db), refuses: true, function: g.pg.Value(t, g.db, "select 'archive_partners'::regproc::oid")}
	direct := &positions{g: g, c: loginRaw(t, g.pg.Addr(), g.db)}
	all, cases, last := os.Getenv("LOCKKEEPER_TEST_ALL") != "", -1, ""
	defer func() {
		if t.Failed() {
			t.Logf("the last one: %s", last)
		}
	}()
	for _, around := range surroundings() {
		for _, x := range refused() {
			for _, body := range bodies(x.steps) {
				if around.failed && x.under != "" {
					continue // nothing can be bound there
				}
				if cases++; cases%sample != 0 && !all {
					continue
				}
				last = around.name + "; " + x.name + "; " + body
				p := position{around: around, under: x.under, body: body}
				want, got := direct.run(p), through.run(p)
				if i := firstUnequal(want, got); i >= 0 {
					t.Errorf("%s:\nreply %d: directly %q\n through the guard %q",
						last, i, at(want, i), at(got, i))
				}
			}
		}
	}
	if after := g.rowsLeft(); after != before {
		t.Errorf("%s rows before, %s after", before, after)
	}
}

// sample is how many pipelines there are for one that is played; prime to the
// number of bodies, so that each is played in some surrounding.
const sample = 13

// refusesDeleteAndCopy refuses what the tests take for refused.
func refusesDeleteAndCopy(s *setup) {
	s.policy = `
profile: odoo
critical_tables: [account_move_line]
rules:
  - {name: never, match: {kinds: [delete, copy], tables: critical, bound: [none]}, action: refuse}
  - {name: no-copy, match: {kinds: [copy], tables: critical}, action: refuse}
`
}

// surrounding is where a pipeline is played.
type surrounding struct {
	name   string
	setup  string // messages before it, with the rule already in force
	failed bool   // it ends in a failed transaction
}

// Messages are written as in pipeline: "P name text ; B portal name ; E portal".
// $X is the refused text.
func surroundings() []surrounding {
	const portal = "P series select generate_series(1, 3) ; B open series ; E1 open"
	return []surrounding{
		{name: "outside a transaction"},
		{name: "in an implicit transaction that has a suspended portal", setup: "P i insert into seen values (10) ; B - i ; E - ; " + portal},
		{name: "in a transaction", setup: "Q begin ; Q insert into seen values (10)"},
		{name: "in a transaction begun in the pipeline", setup: "P - begin ; B - - ; E - ; P i insert into seen values (10) ; B - i ; E -"},
		{name: "in a transaction that has a suspended portal", setup: "Q begin ; " + portal + " ; S"},
		{
			name:  "in a savepoint, with a suspended portal from before it",
			setup: "Q begin ; " + portal + " ; P save savepoint a ; B save save ; E save ; P - select 7 ; S",
		},
		{name: "in a failed transaction", setup: "Q begin ; Q select nothing", failed: true},
		{name: "behind an unnamed statement", setup: "P - select 7 ; S"},
	}
}

// target is a way to run what is refused.
type target struct {
	name  string
	steps string
	under string // messages sent before the rule is in force
}

func refused() []target {
	prepared := "P x $B ; H"
	bound := "P x $E ; B px x ; H"
	return []target{
		{name: "Parse", steps: "P - $P ; B - - ; D - ; E -"},
		{name: "Parse of a named statement", steps: "P new $P ; DS new ; B - new ; E - ; C new"},
		{name: "Parse of a name in use", steps: "P keep $P ; B - keep ; E -"},
		{name: "Parse alone", steps: "P - $P"},
		{name: "Bind", under: prepared, steps: "B - x ; D - ; E -"},
		{name: "Bind behind Describe", under: prepared, steps: "DS x ; B px x ; E px ; CP px"},
		{name: "Execute", under: bound, steps: "E px ; CP px"},
		{name: "Execute with a row limit, twice", under: bound, steps: "D px ; E1 px ; E1 px"},
		{name: "Query", steps: "Q $P"},
		{name: "first of a text", steps: "Q $T{$P; insert into seen values (3); select 1}"},
		{name: "in the middle of a text", steps: "Q $T{insert into seen values (3); $P; select 1}"},
		{name: "last of a text", steps: "Q $T{select 1; insert into seen values (3); $P}"},
		{name: "Query of EXECUTE", under: "Q prepare x as $B", steps: "Q $T{execute x}"},
		{name: "FunctionCall", steps: "F $F"},
		{name: "COPY", steps: "Q $C ; d 1 ; c"},
		{name: "COPY with CopyFail", steps: "Q $C ; d 1 ; f"},
		{name: "COPY in the extended protocol", steps: "P - $C ; B - - ; D - ; E - ; d 1 ; c"},
		{name: "COPY behind other statements", steps: "Q $T{insert into seen values (3); $C} ; d 1 ; c"},
	}
}

// bodies puts a target first, in the middle and last among other statements,
// with nothing, Flush or Sync between them.
func bodies(x string) []string {
	const a, b = "P - insert into seen values (1) ; B - - ; D - ; E -", "P b insert into seen values (2) returning n ; B p b ; D p ; E1 p ; E1 p ; C b"
	var out []string
	for _, order := range [][3]string{{x, a, b}, {a, x, b}, {a, b, x}} {
		for _, first := range []string{"", "H ; ", "S ; "} {
			for _, second := range []string{"", "H ; ", "S ; "} {
				out = append(out, order[0]+" ; "+first+order[1]+" ; "+second+order[2]+" ; S")
			}
		}
	}
	return append(out, x+" ; S ; S", "H ; H ; "+x+" ; H ; S", x+" ; "+x+" ; S ; "+x+" ; S")
}

// later is what happens behind every pipeline, in one write: what is left of
// the transaction, of statements and portals, and of what was written.
const later = "E1 open ; S ; B - - ; E - ; S ; B - keep ; E - ; S ; Q select 3 ; B back back ; E back ; S ; E1 open ; S ; B - - ; E - ; S ; " +
	"Q insert into seen values (4) ; Q commit ; Q select n from seen order by n ; " +
	"Q select name, prepare_time < now() from pg_prepared_statements where name <> '' order by name ; Q rollback ; Q discard all ; Q select 'the end'"

// position is one pipeline of the test.
type position struct {
	around surrounding
	under  string
	body   string
}

// positions plays pipelines on one connection.
type positions struct {
	g        *guard
	c        *rawClient
	refuses  bool   // by the guard; otherwise by the server
	function string // the number of one that the guard refuses
}

// fails are the texts that stand for what is refused: in the guard's run the
// rule refuses them, in the server's they fail at Parse, Bind and Execute.
func (p *positions) fails() *strings.Replacer {
	if p.refuses {
		return strings.NewReplacer("$P", unbounded, "$B", unbounded+" returning id", "$E", unbounded+" returning id",
			"$C", "copy account_move_line from stdin", "$F", p.function)
	}
	return strings.NewReplacer("$P", refusedByServer, "$B", "select id from account_move_line where id = 1/0",
		"$E", "select id from account_move_line where 1 / (random() * 0)::int = 1", "$C", refusedByServer, "$F", "1397")
}

const refusedByServer = "select 'x'::pg_catalog.int4"

// run plays one pipeline and returns every reply.
func (p *positions) run(x position) []string {
	p.g.contain(policy.Containment{Kind: policy.ObserveMode})
	p.exchange("Q create temp table seen (n int) ; P keep select 5 ; P back rollback to a ; S")
	body, out := x.body, []string(nil)
	switch before := join(x.around.setup, x.under); {
	case before == "":
	case x.under == "" && !settles(before): // one pipeline with what follows
		body = join(before, body)
	default:
		out = p.exchange(before)
	}
	p.g.contain()
	p.write(join(body, later))
	for {
		m := p.c.read()
		if out = append(out, p.told(m)); m == nil || m.Type() == 'D' && values(m.Body()) == ` "the end"` {
			break
		}
	}
	p.c.until('Z', 1)
	return out
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + " ; " + b
}

// settles reports whether ReadyForQuery is the last answer to a line.
func settles(line string) bool {
	last := line[strings.LastIndex(line, " ; ")+1:]
	return strings.HasSuffix(line, "S") || strings.HasPrefix(strings.TrimPrefix(last, "; "), "Q ")
}

func (p *positions) exchange(line string) []string {
	p.write(line)
	return p.read(line)
}

// read reads what answers a line: as many ReadyForQuery as it asks for, and
// where it ends in a Flush the answer to what was flushed.
func (p *positions) read(line string) []string {
	p.g.t.Helper()
	ready, last, owed := 0, byte(0), map[byte]int{} // owed since the last boundary
	for _, part := range strings.Split(line, " ; ") {
		switch kind, _, _ := strings.Cut(part, " "); kind {
		case "Q", "S", "F":
			ready++
			clear(owed)
		case "P":
			last = '1'
			owed[last]++
		case "B":
			last = '2'
			owed[last]++
		}
	}
	ms := p.c.until('Z', ready)
	if strings.HasSuffix(line, "H") {
		ms = append(ms, p.c.until(last, owed[last])...)
	}
	var out []string
	for _, m := range ms {
		out = append(out, p.told(m))
	}
	return out
}

// told is a reply without what tells a refusal from its stand-in, and without
// the line of source that an error comes from.
func (p *positions) told(m wire.Message) string {
	if m == nil || m.Type() != 'E' {
		return same(m)
	}
	code := string(wire.Field(m.Body(), 'C'))
	if p.refuses && strings.HasPrefix(code, "23G0") || !p.refuses && (code == "22P02" || code == "22012" || code == "23505" || code == "57014") {
		return "refused"
	}
	return show(m) + " " + string(wire.Field(m.Body(), 'M'))
}

// write sends a line in one write.
func (p *positions) write(line string) {
	if line == "" {
		return
	}
	if !p.refuses { // a text that holds a refused statement is refused whole
		for strings.Contains(line, "$T{") {
			begin, rest, _ := strings.Cut(line, "$T{")
			_, end, _ := strings.Cut(rest, "}")
			line = begin + refusedByServer + end
		}
	}
	line = p.fails().Replace(strings.NewReplacer("$T{", "", "}", "").Replace(line))
	for _, part := range strings.Split(line, " ; ") {
		p.message(part)
	}
	p.c.flush()
}

func (p *positions) message(part string) {
	kind, rest, _ := strings.Cut(part, " ")
	first, second, _ := strings.Cut(rest, " ")
	first, unnamed := strings.TrimPrefix(first, "-"), strings.TrimPrefix(second, "-")
	const zero = "\x00"
	switch kind {
	case "P":
		p.c.send('P', first, zero, second, zero, "\x00\x00")
	case "B":
		p.c.send('B', first, zero, unnamed, zero, "\x00\x00\x00\x00\x00\x00")
	case "D":
		p.c.send('D', "P", first, zero)
	case "DS":
		p.c.send('D', "S", first, zero)
	case "E":
		p.c.send('E', first, zero, "\x00\x00\x00\x00")
	case "E1":
		p.c.send('E', first, zero, "\x00\x00\x00\x01")
	case "C":
		p.c.send('C', "S", first, zero)
	case "CP":
		p.c.send('C', "P", first, zero)
	case "S", "H", "c":
		p.c.send(kind[0])
	case "Q":
		p.c.query(rest)
	case "F":
		p.c.send('F', oid(rest), "\x00\x00", parameters([]string{"x"}), "\x00\x00")
	case "d":
		p.c.send('d', rest, "\n")
	case "f":
		p.c.send('f', "no more", zero)
	default:
		panic(fmt.Sprintf("no such message: %q", part))
	}
}

// oid writes a number as the protocol has it.
func oid(text string) string {
	var n uint32
	fmt.Sscan(text, &n)
	return string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// A COMMIT that read-only refuses is one that fails in the server: there the
// oracle is a deferred constraint, and for COPY data the client's own CopyFail.
func TestARefusedCommitAtEveryPosition(t *testing.T) {
	g := newGuard(t)
	g.pg.MustExec(t, g.db, "create table kept (n int unique deferrable initially deferred); insert into kept values (1)")
	const (
		insert = "P w insert into kept values ($V) ; B - w ; E -"
		commit = "P - commit ; B - - ; E -"
		one    = "P - select 1 ; B - - ; E -"
	)
	for name, c := range map[string]struct{ before, after string }{
		"Query":                            {"Q begin ; Q insert into kept values ($V)", "Q commit"},
		"Query behind a savepoint":         {"Q begin ; Q savepoint a ; Q insert into kept values ($V) ; Q release a", "Q select 1 ; Q end"},
		"alone":                            {"Q begin ; Q insert into kept values ($V)", commit + " ; S"},
		"first":                            {"Q begin ; Q insert into kept values ($V)", commit + " ; " + one + " ; S"},
		"in the middle":                    {"Q begin ; " + insert + " ; S", one + " ; " + commit + " ; " + one + " ; S"},
		"last":                             {"Q begin ; " + insert + " ; S", one + " ; H ; " + commit + " ; H ; S"},
		"between Syncs":                    {"Q begin ; " + insert + " ; S", one + " ; S ; " + commit + " ; S ; " + one + " ; S"},
		"twice":                            {"Q begin ; " + insert + " ; S", commit + " ; S ; " + commit + " ; S"},
		"Sync":                             {insert + " ; H", "S"},
		"Sync behind more":                 {insert + " ; H", one + " ; S ; " + one + " ; S"},
		"Sync behind an error":             {insert + " ; H", "P - select nothing ; S ; " + one + " ; S"},
		"two Syncs":                        {insert + " ; H", "S ; S"},
		"ROLLBACK":                         {"Q begin ; Q insert into kept values ($V)", "Q rollback ; Q commit"},
		"of a transaction that has failed": {"Q begin ; Q insert into kept values ($V) ; Q select nothing", "Q commit"},
		"of one that has only read":        {"Q begin ; Q select 1", "Q commit"},
		"COPY data":                        {"Q copy kept from stdin", "d $V ; $END"},
		"COPY data, extended":              {"P - copy kept from stdin ; B - - ; E - ; H", "d $V ; $END ; S"},
		"COPY data, as libpq sends it":     {"P - copy kept from stdin ; B - - ; D - ; E - ; S", "d $V ; H ; d 7 ; $END ; S"},
	} {
		t.Run(name, func(t *testing.T) {
			play := func(p *positions, value, end string) []string {
				g.contain()
				texts := strings.NewReplacer("$V", value, "$END", end)
				p.write(texts.Replace(c.before))
				last := byte('Z')
				switch {
				case strings.Contains(c.before, "copy"):
					last = 'G'
				case strings.HasSuffix(c.before, "H"):
					last = 'C'
				}
				n := 1
				if last == 'Z' {
					n = strings.Count("; "+c.before, "; Q ") + strings.Count(c.before+" ", "; S ")
				}
				var out []string
				for _, m := range p.c.until(last, n) {
					out = append(out, p.told(m))
				}
				if p.refuses {
					g.contain(policy.Containment{Kind: policy.ReadOnlyMode, InFlight: policy.RefuseCommit})
				}
				p.write(texts.Replace(c.after) + " ; Q select n from kept order by n ; Q select 'the end'")
				for {
					m := p.c.read()
					if out = append(out, p.told(m)); m == nil || m.Type() == 'D' && values(m.Body()) == ` "the end"` {
						return out
					}
				}
			}
			want := play(&positions{g: g, c: loginRaw(t, g.pg.Addr(), g.db)}, "1", "f")
			got := play(&positions{g: g, c: loginRaw(t, g.addr, g.db), refuses: true}, "2", "c")
			if i := firstUnequal(want, got); i >= 0 {
				t.Errorf("reply %d: directly %q\n through the guard %q\nall %q\nand %q", i, at(want, i), at(got, i), want, got)
			}
		})
	}
}
