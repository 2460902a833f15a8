package inspect

// Reading is what of a constant was looked at; each includes those before.
type Reading uint8

// The readings.
const (
	ReadCount Reading = 1 + iota // that it is there: in a list, how many there are
	ReadKind                     // whether it is a number, a text, a Boolean or NULL
	ReadValue                    // its content
)

// Constant is a constant of a text and what the facts about the text depend
// on of it: they are the same for every text that differs in other constants
// only. Offset is where the parser places it, in bytes: at its beginning, or
// at the signs in front of it.
type Constant struct {
	Offset  int
	Reading Reading
}
