package inspect

import (
	"bytes"
	"hash/maphash"
	"strings"
	"testing"
)

func TestShorten(t *testing.T) {
	s := shortener{seed: maphash.MakeSeed()}
	long := strings.Repeat("a", longRun)
	tests := []struct {
		name, text string
		same       bool
	}{
		{"short", "SELECT 1", true},
		{"a run at the limit", "SELECT '" + long + "'", true},
		{"a run beyond it", "SELECT '" + long + "b'", false},
		{"runs between other characters", strings.Repeat("abc,", 5000), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := s.shorten([]byte(test.text))
			if (string(got) == test.text) != test.same {
				t.Errorf("shortened to %d of %d bytes", len(got), len(test.text))
			}
		})
	}
}

func TestShortenKeepsEqualRunsEqual(t *testing.T) {
	s := shortener{seed: maphash.MakeSeed()}
	tag := "x" + strings.Repeat("y", 5000)
	other := "x" + strings.Repeat("y", 2500) + "z" + strings.Repeat("y", 2499)
	got := string(s.shorten([]byte("SELECT $" + tag + "$ $" + other + "$ $" + tag + "$")))
	parts := strings.Split(got, "$")
	if parts[1] != parts[5] || parts[1] == parts[3] {
		t.Errorf("dollar-quote tags: %q", parts)
	}
}

func TestShortenKeepsDigitsDigits(t *testing.T) {
	s := shortener{seed: maphash.MakeSeed()}
	got := string(s.shorten([]byte("SELECT " + strings.Repeat("7", 5000))))
	if digits := strings.TrimPrefix(got, "SELECT "); strings.Trim(digits, "0123456789") != "" || len(digits) > 200 {
		t.Errorf("%q", digits)
	}
}

func FuzzShorten(f *testing.F) {
	f.Add([]byte("SELECT '"), byte('a'), uint16(3000), []byte("' + 1"))
	f.Add([]byte(`E'\`), byte('0'), uint16(1025), []byte("'"))
	f.Add([]byte(""), byte(' '), uint16(2000), []byte(""))
	s := shortener{seed: maphash.MakeSeed()}
	f.Fuzz(func(t *testing.T, before []byte, c byte, n uint16, after []byte) {
		text := append(append(bytes.Clone(before), bytes.Repeat([]byte{c}, int(n))...), after...)
		original := bytes.Clone(text)
		short := s.shorten(text)
		if !bytes.Equal(text, original) {
			t.Fatal("the text was changed")
		}
		if len(short) > len(text) {
			t.Fatalf("%d bytes became %d", len(text), len(short))
		}
		if !bytes.Equal(outsideRuns(short), outsideRuns(text)) {
			t.Fatal("something other than a run was changed")
		}
		if again := s.shorten(short); !bytes.Equal(again, short) {
			t.Fatal("shortening is not complete")
		}
	})
}

// outsideRuns returns the text with every run of letters and digits, long or
// not, replaced by its first and last bytes.
func outsideRuns(text []byte) []byte {
	var out []byte
	for start := 0; start < len(text); {
		end, _ := endOfRun(text, start)
		if end == start {
			out = append(out, text[start])
			start++
			continue
		}
		out = append(out, text[start:min(end, start+16)]...)
		out = append(out, text[max(start, end-16):end]...)
		start = end
	}
	return out
}
