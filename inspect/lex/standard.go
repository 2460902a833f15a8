package lex

// Characters says how long a client encoding's characters are, for the
// encodings in which a byte of a character may look like ASCII.
type Characters uint8

// The ways. Source: src/common/wchar.c.
const (
	ASCIISafe Characters = iota // no byte of a long character is ASCII
	TwoBytes                    // BIG5, GBK, UHC: from 0x80 on two bytes
	ShiftJIS                    // SJIS, SHIFT_JIS_2004: 0xA1 to 0xDF alone, others two
	GB18030                     // two bytes, or four where the second is a digit
	Johab                       // JOHAB: two bytes, three behind 0x8F
)

// length returns how many bytes the character at i has.
func (c Characters) length(text []byte, i int) int {
	b := text[i]
	switch {
	case b < 0x80, c == ASCIISafe, c == ShiftJIS && b >= 0xa1 && b <= 0xdf:
		return 1
	case c == Johab && b == 0x8f:
		return 3
	case c == GB18030 && i+1 < len(text) && text[i+1] >= '0' && text[i+1] <= '9':
		return 4
	default:
		return 2
	}
}

// Letters returns the text with no byte of a long character that looks like
// ASCII: to a lexer each byte of a character is a letter, as it is after the
// server has converted the text. Positions stay. Text that is wrong in the
// encoding is refused by the server before it reads it.
func (c Characters) Letters(text []byte) []byte {
	out := append([]byte(nil), text...)
	for i := 0; i < len(text); {
		n := c.length(text, i)
		for j := i + 1; j < min(i+n, len(text)); j++ {
			out[j] |= 0x80
		}
		i += n
	}
	return out
}

// Standard returns the text as it has to be written while
// standard_conforming_strings is on to mean what it means while that is off:
// with an E before each plain literal that holds a backslash. It returns text
// itself where nothing differs.
func Standard(text []byte) []byte {
	var out []byte
	done := 0
	l := Lexer{Text: text, EscapeStrings: true}
	var before Token
	for t := l.Next(); t.Kind != EOF; before, t = t, l.Next() {
		if text[t.Start] != '\'' || !hasBackslash(text[t.Start:t.End]) {
			continue
		}
		out = append(out, text[done:t.Start]...)
		if before.Kind == Word && before.End == t.Start && before.End-before.Start == 1 && text[before.Start]|0x20 == 'n' {
			out = append(out[:len(out)-1], "NCHAR"...) // N'…', and NE'…' would be something else
		}
		out = append(out, " E"...)
		done = t.Start
	}
	if out == nil {
		return text
	}
	return append(out, text[done:]...)
}

func hasBackslash(text []byte) bool {
	for _, b := range text {
		if b == '\\' {
			return true
		}
	}
	return false
}
