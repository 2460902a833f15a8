package lex

// Cost is what reading a text costs the server's lexer beyond a step a byte.
type Cost struct {
	Nesting int // the depth of the most deeply nested comment
	Rescans int // bytes that are read again
}

// CostOf reads the text as a session may: with escapes in plain literals and
// without, for a comment that is inside a literal for one is none for the
// other. Both costs are the higher of the two.
func CostOf(text []byte) Cost {
	plain, escapes := costOf(text, false), costOf(text, true)
	return Cost{max(plain.Nesting, escapes.Nesting), max(plain.Rescans, escapes.Rescans)}
}

func costOf(text []byte, escapes bool) Cost {
	l := Lexer{Text: text, EscapeStrings: escapes}
	for l.Next().Kind != EOF {
	}
	return Cost{l.Nesting, l.Rescans}
}
