package lex

// Cost is what reading a text costs the server's lexer beyond a step a byte.
type Cost struct {
	// Nesting is the depth of the most deeply nested comment.
	Nesting int
	// Rescans is how many bytes are read again: the server's lexer reads a run
	// of operator characters to its end, and again from behind each token or
	// comment mark that it finds in the run.
	Rescans int
}

// CostOf measures a text in an encoding whose long characters hold no ASCII.
func CostOf(text []byte) Cost {
	m := NewMeter(ASCIISafe)
	m.Add(text)
	return m.Cost()
}

// Meter measures what a text costs while it passes by, in pieces of any size,
// and keeps none of it. It reads the text as a session may: with escapes in
// plain literals and without, for a comment that is inside a literal for one is
// none for the other. Each cost is the higher of the two.
//
// It errs to the costly side where versions differ: behind digits a word begins,
// as in version 14; later ones read no further there.
type Meter struct {
	readings   [2]reading
	characters Characters
	left       int  // bytes of a long character still to come
	second     bool // the next one is its second
}

// NewMeter returns a meter for texts in an encoding of such characters.
func NewMeter(c Characters) *Meter {
	m := &Meter{characters: c}
	m.readings[1].escapes = true
	return m
}

// Cost returns what the text has cost so far.
func (m *Meter) Cost() Cost {
	plain, escapes := m.readings[0].total(), m.readings[1].total()
	return Cost{max(plain.Nesting, escapes.Nesting), max(plain.Rescans, escapes.Rescans)}
}

// Add measures the next piece of the text.
func (m *Meter) Add(piece []byte) {
	if m.characters == ASCIISafe {
		m.read(piece)
		return
	}
	var letters [512]byte
	for len(piece) > 0 {
		n := copy(letters[:], piece)
		m.toLetters(letters[:n])
		m.read(letters[:n])
		piece = piece[n:]
	}
}

func (m *Meter) read(piece []byte) {
	for i := range m.readings {
		m.readings[i].read(piece)
	}
}

// toLetters is Letters for a piece, in place.
func (m *Meter) toLetters(piece []byte) {
	for i, b := range piece {
		if m.left == 0 {
			m.left, m.second = m.characters.length(piece[i:i+1], 0)-1, true
			continue
		}
		if m.second && m.characters == GB18030 && classes[b] == digitClass {
			m.left = 3
		}
		m.left--
		m.second = false
		piece[i] |= 0x80
	}
}
