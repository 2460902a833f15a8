package inspect

import "sync"

// MaxLateText bounds the texts that wait for somebody to ask for their
// fingerprint, in bytes: those of longer ones are made when they are parsed.
const MaxLateText = 4 << 10

// Fingerprint stands for a text without its literals: it is equal for texts that
// differ in nothing else. It costs a parse of its own, and of most texts nobody
// asks for it, so that it is made when somebody does: the journal's writer, or an
// operator. It keeps the text until then. It is safe for concurrent use; nil is
// the fingerprint of a text of which there is none.
type Fingerprint struct {
	once sync.Once
	text string
	of   func(text string) uint64
	sum  uint64
}

// NewFingerprint returns the fingerprint of text, which of makes.
func NewFingerprint(text string, of func(text string) uint64) *Fingerprint {
	return &Fingerprint{text: text, of: of}
}

// Value returns the fingerprint, 0 where there is none. It may take as long as
// a parse.
func (f *Fingerprint) Value() uint64 {
	if f == nil {
		return 0
	}
	f.once.Do(func() {
		f.sum = f.of(f.text)
		f.text, f.of = "", nil
	})
	return f.sum
}

// lateBytes is how much of a text its batch keeps for the fingerprint.
func (b *Batch) lateBytes(text []byte) int64 {
	if b.Fingerprint == nil || len(text) > MaxLateText {
		return 0
	}
	return int64(len(text))
}
