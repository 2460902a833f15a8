// Package inspect turns SQL text into facts about what it would do; it decides nothing.
package inspect

import "lockkeeper/inspect/lex"

// Lexing is what a server session's settings say about how its text is read.
// Source: the manual, sections 4.1.2.2 (standard_conforming_strings) and
// 24.3 (client encodings whose second byte may be ASCII).
type Lexing struct {
	EscapeStrings bool           // standard_conforming_strings is off: backslashes escape in plain literals
	Characters    lex.Characters // of client_encoding, where ASCII bytes may be parts of long ones
	Uncertain     bool           // one of the settings is not known
}

// ParseFunc turns one text into a batch. It never returns nil: what it cannot
// parse comes back as an Unknown batch with a reason.
type ParseFunc func(text string) *Batch
