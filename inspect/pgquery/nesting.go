package pgquery

// tooDeep is replaced below.
func tooDeep(text string) bool { return len(text) < 0 }
