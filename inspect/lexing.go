package inspect

import (
	"strings"

	"lockkeeper/inspect/lex"
)

// safeEncodings are the client encodings in which no byte of a multi-byte
// character is ASCII, as normalised by encodingName. Source: the manual,
// table 24.3 (those allowed on the server have this property), and
// src/common/encnames.c for the aliases.
var safeEncodings = []string{
	"abc", "alt", "euccn", "eucjis2004", "eucjp", "euckr", "euctw", "iso88591", "iso885910", "iso885913", "iso885914",
	"iso885915", "iso885916", "iso88592", "iso88593", "iso88594", "iso88595", "iso88596", "iso88597", "iso88598",
	"iso88599", "koi8", "koi8r", "koi8u", "latin1", "latin10", "latin2", "latin3", "latin4", "latin5", "latin6",
	"latin7", "latin8", "latin9", "muleinternal", "sqlascii", "tcvn", "tcvn5712", "unicode", "utf8", "vscii", "win",
	"win1250", "win1251", "win1252", "win1253", "win1254", "win1255", "win1256", "win1257", "win1258", "win866",
	"win874", "windows1250", "windows1251", "windows1252", "windows1253", "windows1254", "windows1255", "windows1256",
	"windows1257", "windows1258", "windows866", "windows874",
}

// unsafeEncodings are the others, with how long their characters are.
var unsafeEncodings = map[string]lex.Characters{
	"big5": lex.TwoBytes, "gb18030": lex.GB18030, "gbk": lex.TwoBytes, "johab": lex.Johab, "mskanji": lex.ShiftJIS, "shiftjis": lex.ShiftJIS,
	"shiftjis2004": lex.ShiftJIS, "sjis": lex.ShiftJIS, "uhc": lex.TwoBytes, "win932": lex.ShiftJIS, "win936": lex.TwoBytes,
	"win949": lex.TwoBytes, "win950": lex.TwoBytes, "windows932": lex.ShiftJIS, "windows936": lex.TwoBytes, "windows949": lex.TwoBytes,
	"windows950": lex.TwoBytes,
}

// LexingFor says how the server reads a session's texts, from the values of
// the two settings as ParameterStatus reports them. A value that is not known,
// the empty one included, makes it uncertain.
func LexingFor(standardConformingStrings, clientEncoding string) Lexing {
	l := Lexing{EscapeStrings: standardConformingStrings == "off"}
	encoding := encodingName(clientEncoding)
	characters, long := unsafeEncodings[encoding]
	l.Characters = characters
	l.Uncertain = !l.EscapeStrings && standardConformingStrings != "on" || !long && !contains(safeEncodings, encoding)
	return l
}

// encodingName normalises an encoding's name as the server does: letters and
// digits only, in lower case. Source: clean_encoding_name in encnames.c.
func encodingName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		default:
			return -1
		}
	}, s)
}

// contains reports whether the sorted list holds s. It does not allocate.
func contains(sorted []string, s string) bool {
	lo, hi := 0, len(sorted)
	for lo < hi {
		if mid := (lo + hi) / 2; sorted[mid] < s {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < len(sorted) && sorted[lo] == s
}

// differs reports whether the server may read the text otherwise than a parser
// does that knows only standard-conforming strings and ASCII-safe encodings.
func (l Lexing) differs(text []byte) bool {
	if (l.EscapeStrings || l.Uncertain) && hasByte(text, '\\') {
		return true
	}
	return (l.Characters != lex.ASCIISafe || l.Uncertain) && hasHighByte(text)
}

// standard returns a text that such a parser reads as the server reads this
// one.
func (l Lexing) standard(text []byte) []byte {
	if l.Characters != lex.ASCIISafe {
		text = l.Characters.Letters(text)
	}
	if l.EscapeStrings {
		text = lex.Standard(text)
	}
	return text
}

func hasByte(text []byte, c byte) bool {
	for _, b := range text {
		if b == c {
			return true
		}
	}
	return false
}

func hasHighByte(text []byte) bool {
	for _, b := range text {
		if b >= 0x80 {
			return true
		}
	}
	return false
}

// ChangesLexing reports whether the batch may change how the server reads the
// texts after it: SET and RESET of standard_conforming_strings or
// client_encoding in all their forms, DISCARD ALL, set_config(), and what
// cannot be seen into (DO, CALL, EXECUTE, unclassified text). Texts pipelined
// behind such a batch can be trusted only after its reply, which carries the
// new values as ParameterStatus; and so can texts behind the COMMIT, ROLLBACK
// or ROLLBACK TO of a transaction that held one, for these put old values
// back. A function that is not built in may change the settings, too, and is
// not reported: ParameterStatus tells of it afterwards.
func (b *Batch) ChangesLexing() bool {
	if b.Why != "" {
		return true
	}
	for i := range b.Statements {
		if b.Statements[i].changesLexing() {
			return true
		}
	}
	return false
}

func (s *Statement) changesLexing() bool {
	switch {
	case s.Class == Unknown, s.Hidden&HiddenSettings != 0:
		return true
	case s.Kind == KindDiscard:
		return s.NoBlock // DISCARD ALL; the other forms leave settings alone
	default:
		return s.Set != nil && contains(lexingSettings, s.Set.Name)
	}
}

// lexingSettings are the names under which SET and RESET reach the two
// settings (SET NAMES is client_encoding). Sorted.
var lexingSettings = []string{"all", "client_encoding", "standard_conforming_strings"}
