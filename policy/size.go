package policy

import (
	"fmt"
	"math"
	"strconv"

	"lockkeeper/inspect"
)

// sizeWords says how large a table is, in brackets: " (2.1 GB, about 1.2
// million rows)"; "" where nobody knows.
func sizeWords(s *inspect.Size) string {
	if s == nil {
		return ""
	}
	return " (" + bytesWords(s.Bytes) + ", about " + rowsWords(s.Rows) + ")"
}

// bytesWords is a size as people say it, in the units of pg_size_pretty().
func bytesWords(n int64) string {
	size, unit := float64(n), "bytes"
	for _, larger := range []string{"kB", "MB", "GB", "TB"} {
		if size < 1000 {
			break
		}
		size, unit = size/1024, larger
	}
	if size < 10 {
		return number(math.Round(size*10)/10) + " " + unit
	}
	return number(math.Round(size)) + " " + unit
}

func rowsWords(n int64) string {
	switch {
	case n == 1:
		return "1 row"
	case n < 10_000:
		return strconv.FormatInt(n, 10) + " rows"
	case n < 1_000_000:
		return fmt.Sprintf("%.0f,000 rows", float64(n)/1e3)
	default:
		return fmt.Sprintf("%.1f million rows", float64(n)/1e6)
	}
}
