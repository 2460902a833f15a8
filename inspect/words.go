package inspect

import "slices"

// maxWords bounds Batch.Words; a text with more different words may mention
// anything.
const maxWords = 2048

// nameDataLen is the server's limit for identifiers, without the final zero:
// longer ones are cut. Source: NAMEDATALEN in src/include/pg_config_manual.h.
const nameDataLen = 63

// WordsOf returns the identifier-like words of a text, folded to lower case,
// sorted and without duplicates, for Batch.Words. It knows nothing of
// literals and comments, so that it errs to more words. It returns nil, "any
// word may occur", where escapes could spell a name in another way or where
// there are too many words.
func WordsOf(text []byte) []string {
	if hasNameEscape(text) {
		return nil
	}
	seen := make(map[string]struct{})
	for start := 0; start < len(text); {
		if !isWordByte(text[start]) {
			start++
			continue
		}
		end := start
		for end < len(text) && isWordByte(text[end]) {
			end++
		}
		addWords(seen, text[start:end])
		if len(seen) > maxWords {
			return nil
		}
		start = end
	}
	words := make([]string, 0, len(seen))
	for w := range seen {
		words = append(words, w)
	}
	slices.Sort(words)
	return words
}

// addWords adds a run of word bytes, and its parts between dollar signs, for
// those may be the tags of a dollar-quoted body. Digits in front are dropped
// as older servers do.
func addWords(seen map[string]struct{}, run []byte) {
	addWord(seen, run)
	start := 0
	for i := 0; i <= len(run); i++ {
		if i == len(run) || run[i] == '$' {
			addWord(seen, run[start:i])
			start = i + 1
		}
	}
}

func addWord(seen map[string]struct{}, w []byte) {
	for len(w) > 0 && (w[0] >= '0' && w[0] <= '9' || w[0] == '$') {
		w = w[1:]
	}
	if len(w) == 0 {
		return
	}
	if len(w) > nameDataLen {
		w = w[:nameDataLen]
	}
	lower := make([]byte, len(w))
	for i, c := range w {
		lower[i] = foldByte(c)
	}
	if _, ok := seen[string(lower)]; !ok {
		seen[string(lower)] = struct{}{}
	}
}

// hasNameEscape reports whether the text holds a backslash before a letter or
// digit, or U& before a quote (UESCAPE may name any escape character).
func hasNameEscape(text []byte) bool {
	for i, c := range text {
		switch {
		case c == '\\' && i+1 < len(text) && isWordByte(text[i+1]):
			return true
		case c == '&' && i > 0 && foldByte(text[i-1]) == 'u' && i+1 < len(text) && (text[i+1] == '"' || text[i+1] == '\''):
			return true
		}
	}
	return false
}

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

func foldByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
