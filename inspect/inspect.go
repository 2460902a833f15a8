// Package inspect turns SQL text into facts about what it would do; it decides nothing.
package inspect

// Lexing is what a server session's settings say about how its text is read.
// Source: the manual, sections 4.1.2.2 (standard_conforming_strings) and
// 24.3 (client encodings whose second byte may be ASCII).
type Lexing struct {
	EscapeStrings bool // standard_conforming_strings is off: backslashes escape in plain literals
	UnsafeBytes   bool // client_encoding has multi-byte characters with ASCII bytes in them: SJIS, BIG5, GBK, UHC, GB18030, JOHAB, SHIFT_JIS_2004
}

// ParseFunc turns one text into a batch. It never returns nil: what it cannot
// parse comes back as an Unknown batch with a reason.
type ParseFunc func(text string) *Batch
