package console

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCommandsAreRead(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "",
		" ; -- nothing\n;":                     "",
		"show clients;":                        "SHOW CLIENTS",
		"SELECT stats":                         "SHOW STATS",
		"pause":                                "PAUSE",
		"PAUSE db TIMEOUT 2.5":                 "PAUSE db 2.5s",
		"PAUSE timeout 3":                      "PAUSE 3s",
		`PAUSE "timeout"`:                      "PAUSE timeout",
		`RESUME "a""b;c"; SHOW STATE`:          `RESUME a"b;c; SHOW STATE`,
		"KILL_CLIENT 7":                        "KILL_CLIENT 7",
		"SHUTDOWN wait_for_servers":            "SHUTDOWN WAIT_FOR_SERVERS",
		"READ ONLY 'it''s late'":               "READ it's late",
		"SET application_name TO 'x'":          "SET application_name",
		"BEGIN":                                "BEGIN",
		"DISABLE":                              "error",
		"PAUSE a b":                            "error",
		"PAUSE a TIMEOUT -1":                   "error",
		"PAUSE a TIMEOUT NaN":                  "error",
		"SHUTDOWN now":                         "error",
		"READ ONLY tonight":                    "error",
		"DROP TABLE x":                         "error",
		"SHOW 'open":                           "error",
		strings.Repeat(" ", 1+maxCommandBytes): "error",
	} {
		all, err := parse(text)
		var parts []string
		for _, c := range all {
			part := c.verb
			for _, more := range []string{c.what, c.arg} {
				if more != "" {
					part += " " + more
				}
			}
			if c.timeout > 0 {
				part += " " + fmt.Sprint(c.timeout)
			}
			parts = append(parts, part)
		}
		got := strings.Join(parts, "; ")
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: got %q (%v), want %q", text, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"SHOW CLIENTS; PAUSE a TIMEOUT 1", `KILL "x""y"`, "READ ONLY 'a''b'", "SET x = 1", "SELECT --\n1", "SHUTDOWN WAIT_FOR_CLIENTS"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parse(text)
		for _, c := range all {
			if c.verb == "" || c.timeout < 0 || c.timeout > maxTimeout || needs(c.verb) == 0 {
				t.Errorf("%q: %+v", text, c)
			}
			if again, err := parse(c.text); err != nil || len(again) != 1 || again[0].verb != c.verb || again[0].arg != c.arg {
				t.Errorf("%q: its text %q is read as %+v, %v", text, c.text, again, err)
			}
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("the error has %d bytes", len(err.Error()))
		}
	})
}

// TestColumnsStay compares the columns of every SHOW with the golden file;
// programs rely on them.
func TestColumnsStay(t *testing.T) {
	var b strings.Builder
	for _, v := range views() {
		fmt.Fprintf(&b, "%s: %s\n", v.name, v.columns)
	}
	file := filepath.Join("testdata", "columns.golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != b.String() {
		t.Errorf("columns are not those of %s (%v):\n%s", file, err, b.String())
	}
}

func TestCellsAreText(t *testing.T) {
	for _, tt := range []struct {
		in   any
		want string
	}{{nil, "<nil>"}, {time.Time{}, "<nil>"}, {7, "7"}, {true, "true"}, {[]string{"a", "b"}, "a,b"}, {time.Unix(0, 0), "1970-01-01 00:00:00 UTC"}} {
		got := "<nil>"
		if c := cell(tt.in); c != nil {
			got = string(c)
		}
		if got != tt.want {
			t.Errorf("%v: %q, want %q", tt.in, got, tt.want)
		}
	}
}
