package policy

import (
	"testing"

	"lockkeeper/inspect"
)

func TestSizesInWords(t *testing.T) {
	for want, size := range map[string]*inspect.Size{
		"":                                  nil,
		" (8 kB, about 1 row)":              {Bytes: 8192, Rows: 1},
		" (1.5 MB, about 9999 rows)":        {Bytes: 3 << 19, Rows: 9999},
		" (977 kB, about 12,000 rows)":      {Bytes: 1_000_000, Rows: 12_345},
		" (2.1 GB, about 1.2 million rows)": {Bytes: 2_254_857_830, Rows: 1_234_567},
		" (44 GB, about 950,000 rows)":      {Bytes: 44 << 30, Rows: 949_999},
		" (3 TB, about 0 rows)":             {Bytes: 3 << 40},
	} {
		if got := sizeWords(size); got != want {
			t.Errorf("%+v is %q, want %q", size, got, want)
		}
	}
}
