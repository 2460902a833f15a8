package policy

// Explanation says what would become of a request, and why.
type Explanation struct {
	Decision Decision `json:"-"`
}

// Explain decides as Decide does and says why.
func (s *Snapshot) Explain(r *Request) Explanation {
	return Explanation{Decision: s.Decide(r)}
}

// Text renders the explanation for people.
func (e *Explanation) Text() string { return e.Decision.Verdict.String() + "\n" }
