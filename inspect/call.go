package inspect

// CallEffect says what is known of the functions that a name in a call may
// mean. The zero value is that nobody has looked.
type CallEffect uint8

// The effects, from what is least known.
const (
	CallUnknown  CallEffect = iota // not looked up
	CallMissing                    // looked up, and not there
	CallVolatile                   // a user's function that is VOLATILE, or whose source names one that is
	CallStable                     // only user's functions that are not
	CallBuiltIn                    // only a built-in function's: what it does is among the statement's Hidden
)

// Call is one function, or one operator, that a statement calls. Names are as
// PostgreSQL folds them. Of functions with one name the most dangerous counts,
// in whatever schema they are.
type Call struct {
	Schema, Name string
	Effect       CallEffect
	More         *Callee // what only a catalog tells; nil where it does not
	Via          string  // what calls it where the text does not: "view v"
}

// Callee is what a catalog tells of the functions of one name. It is
// immutable.
type Callee struct {
	Language string   // of the one that does most
	Definer  bool     // one of them is SECURITY DEFINER
	Settings []string // the names in their SET clauses
}

// maxCalls bounds the calls that are noted of one statement. What is beyond is
// one more, without a name.
const maxCalls = 128

// AddCall notes a call, once.
func (s *Statement) AddCall(c Call) {
	for i := range s.Calls {
		if have := &s.Calls[i]; have.Name == c.Name && have.Schema == c.Schema && have.Via == c.Via {
			return
		}
	}
	switch n := len(s.Calls); {
	case n < maxCalls:
		s.Calls = append(s.Calls, c)
	case n == maxCalls:
		s.Calls = append(s.Calls, Call{})
	}
}
