package repotest

import (
	"strings"
	"testing"
)

// What psql is shown to print in the page on read-only is what the script that
// runs it compares with.
func TestTheTranscriptOfReadOnlyIsTheScripts(t *testing.T) {
	const page, script = "docs/read-only.md", "cmd/lockkeeper/testdata/script/readonly.txt"
	_, rest, found := strings.Cut(read(t, script), "\n-- transcript.want --\n")
	want, _, _ := strings.Cut(rest, "\n-- ")
	if !found || !strings.Contains(read(t, script), "cmp transcript.txt transcript.want") {
		t.Fatalf("%s has no transcript that it compares", script)
	}
	lines := strings.Split(strings.TrimSpace(want), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ") // psql pads a column's title
	}
	if block := "\n```\n" + strings.Join(lines, "\n") + "\n```\n"; !strings.Contains(read(t, page), block) {
		t.Errorf("%s does not have the transcript of %s:%s", page, script, block)
	}
}
