package inspect

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestWordsOf(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"folded, sorted, once", "DELETE FROM Account_Move; delete x1", []string{"account_move", "delete", "from", "x1"}},
		{"inside literals and comments", "DO 'drop a' -- b", []string{"a", "b", "do", "drop"}},
		{"dollar tags", "$$account_move$$ $x$y$x$", []string{"account_move", "account_move$$", "x", "x$y$x$", "y"}},
		{"digits in front", "1account_move", []string{"account_move"}},
		{"nothing", "1 + 2", []string{}},
		{"Unicode escapes in a name", `DELETE FROM U&"account\005fmove"`, nil},
		{"Unicode escapes with another escape", `DELETE FROM u&"account!005fmove" UESCAPE '!'`, nil},
		{"escapes in a literal", `DO E'DELETE FROM account\137move'`, nil},
		{"a backslash before nothing that spells", `SELECT '\ '`, []string{"select"}},
		{"cut as the server cuts names", strings.Repeat("a", 70), []string{strings.Repeat("a", 63)}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := WordsOf([]byte(test.text)); !slices.Equal(got, test.want) || (got == nil) != (test.want == nil) {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestTooManyWordsAreAnyWord(t *testing.T) {
	var text strings.Builder
	for n := range maxWords + 1 {
		fmt.Fprintf(&text, "w%d ", n)
	}
	if words := WordsOf([]byte(text.String())); words != nil {
		t.Errorf("%d words", len(words))
	}
}

func TestMentions(t *testing.T) {
	classified := &Batch{Class: Write, Statements: []Statement{{Class: Write, Relations: []Relation{{Name: "sale_order"}}}}}
	block := &Batch{Class: Unknown, Words: []string{"account_move", "do"}, Statements: []Statement{
		{Class: Unknown}, {Class: Write, Relations: []Relation{{Name: "sale_order"}}},
	}}
	tests := []struct {
		name  string
		batch *Batch
		table string
		want  bool
	}{
		{"classified, named", classified, "sale_order", true},
		{"classified, not named", classified, "account_move", false},
		{"block, among its words", block, "account_move", true},
		{"block, named beside it", block, "sale_order", true},
		{"block, not named", block, "res_partner", false},
		{"unknown, any word", NewUnknown("x", nil), "res_partner", true},
		{"unknown, no words", NewUnknown("x", []string{}), "res_partner", false},
		{"unknown, a name in capitals", NewUnknown("x", []string{"mytable"}), "MyTable", true},
		{"unknown, a name that is no word", NewUnknown("x", []string{"x"}), "my table", true},
		{"unknown, a name beyond ASCII", NewUnknown("x", []string{"x"}), "bücher", true},
	}
	for _, test := range tests {
		if got := test.batch.Mentions(test.table); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestChangesLexing(t *testing.T) {
	set := func(name string) Statement {
		return Statement{Class: Session, Kind: KindSet, Set: &Setting{Name: name}}
	}
	tests := []struct {
		name string
		s    Statement
		want bool
	}{
		{"SET standard_conforming_strings", set("standard_conforming_strings"), true},
		{"SET client_encoding", set("client_encoding"), true},
		{"RESET ALL", Statement{Class: Session, Kind: KindReset, Set: &Setting{Name: "all", Reset: true}}, true},
		{"SET lock_timeout", set("lock_timeout"), false},
		{"DISCARD ALL", Statement{Class: Session, Kind: KindDiscard, NoBlock: true}, true},
		{"DISCARD PLANS", Statement{Class: Session, Kind: KindDiscard}, false},
		{"set_config", Statement{Class: Read, Kind: KindSelect, Hidden: HiddenFunction | HiddenSettings}, true},
		{"DO", Statement{Class: Unknown, Kind: KindDo}, true},
		{"SELECT", Statement{Class: Read, Kind: KindSelect}, false},
		{"UPDATE", Statement{Class: Write, Kind: KindUpdate}, false},
	}
	for _, test := range tests {
		b := Batch{Class: test.s.Class, Statements: []Statement{{Class: Read}, test.s}}
		if got := b.ChangesLexing(); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
	if !NewUnknown("x", nil).ChangesLexing() {
		t.Error("a text that nobody understood is trusted")
	}
}
