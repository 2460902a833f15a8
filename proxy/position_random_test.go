package proxy_test

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// pieces of random pipelines: whatever a client may put together. $… is what is
// refused, see positions.fails.
var pipelinePieces = []string{
	"P - insert into seen values (1) ; B - - ; E -", "P - select 6 ; B - - ; D - ; E -", "P a select generate_series(1, 3)", "B pa a ; E1 pa", "E1 pa", "E pa",
	"CP pa", "C a", "B - a ; E -", "B - - ; E -", "E -", "D pa", "DS a", "DS -", "H", "H", "S", "S", "S", "S",
	"Q select 8", "Q insert into seen values (2)", "Q ", "Q begin", "Q commit", "Q rollback", "Q savepoint a", "Q rollback to a", "Q release a",
	"P - begin ; B - - ; E -", "P - commit ; B - - ; E -", "P - rollback ; B - - ; E -", "P - savepoint a ; B - - ; E -", "B - back ; E -",
	"P - selec", "P - select nothing", "P a select nothing", "Q selec", "Q begin; select nothing; commit", "B - nothing", "Q deallocate a", "Q discard plans",
	"Q prepare a as select 9", "Q execute a", "Q select 1; select 2", "Q begin; insert into seen values (3); savepoint a", "Q commit and chain", "c", "d stray",
	"Q copy seen from stdin ; d 5 ; c", "Q copy seen from stdin ; d 5\t6 ; c", "P cp copy seen from stdin ; B pc cp ; E pc ; d 6 ; c ; CP pc ; C cp", "Q copy seen to stdout",
	"P - $P ; B - - ; E -", "P a $P", "P - $P", "B - x ; E -", "B - x", "DS x ; B - x ; D - ; E -", "Q $P", "Q $T{select 1; $P}", "Q $T{begin; $P}",
	"Q $T{execute x}", "F $F", "Q $C ; d 1 ; c", "P - $C ; B - - ; E - ; d 1 ; c",
}

// Random pipelines with refusals in them: the oracle is that of
// TestARefusalAtEveryPosition.
func TestRandomPipelinesWithRefusals(t *testing.T) {
	g := newGuard(t, refusesDeleteAndCopy)
	through := &positions{g: g, c: loginRaw(t, g.addr, g.db), refuses: true, function: g.pg.Value(t, g.db, "select 'archive_partners'::regproc::oid")}
	direct := &positions{g: g, c: loginRaw(t, g.pg.Addr(), g.db)}
	seed, count := uint64(1), 100
	if os.Getenv("LOCKKEEPER_TEST_ALL") != "" {
		seed, count = rand.Uint64(), 5000
	}
	random := rand.New(rand.NewPCG(seed, 0))
	for range count {
		var body []string
		for range 2 + random.IntN(12) {
			body = append(body, pipelinePieces[random.IntN(len(pipelinePieces))])
		}
		p := position{under: "P x $B ; H", body: strings.Join(append(body, "S"), " ; ")}
		want, got := direct.run(p), through.run(p)
		if i := firstUnequal(want, got); i >= 0 {
			t.Fatalf("seed %d: %s:\nreply %d: directly %q\n through the guard %q\nafter %q", seed, p.body, i, at(want, i), at(got, i), want[:i])
		}
	}
}
