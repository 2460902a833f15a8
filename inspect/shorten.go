package inspect

import (
	"encoding/binary"
	"encoding/hex"
	"hash/maphash"
	"strconv"
)

// A run of letters and digits longer than longRun is replaced by its ends and
// a hash of its middle.
const (
	longRun = 1024
	keepRun = 64
)

// shortener cuts long runs of letters and digits out of texts: hexadecimal
// bytea literals are most of a text that uploads an attachment.
type shortener struct{ seed maphash.Seed }

// shorten returns the text with every long run of [0-9A-Za-z] replaced by its
// first bytes, a hash of its middle and its last bytes, or the text itself
// when there is none. The result lexes as the text does: such a run is a part
// of one token wherever it stands, identifiers are cut at 63 bytes by the
// server, escapes end within the first bytes of a run, a run of digits stays
// one, and two dollar-quote tags stay equal or different as they were (the
// hash is keyed, so that nobody can choose two tags that become equal).
func (s *shortener) shorten(text []byte) []byte {
	var out []byte
	done := 0
	for start := 0; start < len(text); start++ {
		end, digits := endOfRun(text, start)
		if end-start > longRun {
			out = append(out, text[done:start+keepRun]...)
			out = s.appendHash(out, text[start+keepRun:end-keepRun], digits)
			done = end - keepRun
		}
		start = end
	}
	if out == nil {
		return text
	}
	return append(out, text[done:]...)
}

// endOfRun returns the end of the run that begins at start, and whether it
// holds nothing but digits.
func endOfRun(text []byte, start int) (end int, digits bool) {
	digits = true
	for end = start; end < len(text); end++ {
		switch c := text[end]; {
		case c >= '0' && c <= '9':
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
			digits = false
		default:
			return end, digits
		}
	}
	return end, digits
}

func (s *shortener) appendHash(out, middle []byte, digits bool) []byte {
	sum := maphash.Bytes(s.seed, middle)
	if digits {
		return strconv.AppendUint(out, sum, 10)
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], sum)
	return hex.AppendEncode(out, b[:])
}
