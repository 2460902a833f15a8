package pgquery

import (
	"unicode/utf8"

	"lockkeeper/inspect"
)

// asUTF8 returns the text as the parser's tree can hold it: strings in it
// must be UTF-8. A text in another encoding is taken for LATIN1. To the lexer
// all bytes from 0x80 on are the same, a letter, and different ones stay
// different, so that the text reads as before; what the names in it are is
// right for LATIN1, and for names in ASCII in all encodings.
func asUTF8(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	out := make([]byte, 0, len(text)+len(text)/4)
	for i := range len(text) {
		out = utf8.AppendRune(out, rune(text[i]))
	}
	return string(out)
}

// restorePositions makes positions in a text that asUTF8 changed those of the
// text itself. Statements are in order.
func restorePositions(list []inspect.Statement, text string) {
	at, from := 0, 0 // the same place in asUTF8(text) and in text
	advance := func(to int) int {
		for at < to && from < len(text) {
			at += utf8.RuneLen(rune(text[from]))
			from++
		}
		return from
	}
	for i := range list {
		s := &list[i]
		end := s.Start + s.Len
		s.Start = advance(s.Start)
		if s.Len > 0 {
			s.Len = advance(end) - s.Start
		}
	}
}
