package inspect

import (
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"lockkeeper/inspect/lex"
)

// metrics are the inspector's; see docs/reference/metrics.
type metrics struct {
	hits, misses                                   atomic.Uint64 // what each look-up counts
	slow, fromTokens, slowTrees                    prometheus.Counter
	seconds                                        prometheus.Histogram
	lexing, tooLong, busy, canceled, costly, other prometheus.Counter
	shared                                         prometheus.Counter
	exact                                          *prometheus.CounterVec
}

// The reasons why facts are kept by the whole text, or for long texts not at
// all. They are those of package lex, and two of our own.
const (
	unshapedLong      = "long"
	unshapedConstants = "constants"
)

func unshapedReason(why lex.Unshaped) string {
	switch why {
	case lex.NoQuery:
		return "no_query"
	case lex.Several:
		return "several"
	case lex.Uncertain:
		return "uncertain"
	case lex.Crowded:
		return "crowded"
	case lex.Shaped:
	}
	return unshapedConstants
}

// unshaped counts a text whose facts are not kept by its shape.
func (m *metrics) unshaped(reason string) prometheus.Counter { return m.exact.WithLabelValues(reason) }

func newMetrics(reg prometheus.Registerer, i *Inspector) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "lockkeeper_inspect_" + name, Help: help})
	}
	counted := func(name, help string, n *atomic.Uint64) prometheus.Collector {
		opts := prometheus.CounterOpts{Name: "lockkeeper_inspect_" + name, Help: help}
		return prometheus.NewCounterFunc(opts, func() float64 { return float64(n.Load()) })
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "lockkeeper_inspect_" + name, Help: help}, value)
	}
	unknown := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "lockkeeper_inspect_unknown_total",
		Help: "Texts that could not be classified, by reason.",
	}, []string{"reason"})
	m := &metrics{
		slow: counter("slow_parses_total", "Parses that took longer than a second."),
		fromTokens: counter("from_tokens_total",
			"Texts that the grammar did not take, so that facts were read from their tokens: mistakes, or the grammar of a newer server."),
		slowTrees: counter("slow_trees_total",
			"Parsed texts whose tree was read the slow way, as it holds more than queries do: DDL, mostly."),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "lockkeeper_inspect_parse_seconds",
			Help:    "Time the parser took for one text.",
			Buckets: prometheus.ExponentialBuckets(20e-6, 4, 10),
		}),
		lexing:   unknown.WithLabelValues("lexing"),
		tooLong:  unknown.WithLabelValues("too_long"),
		busy:     unknown.WithLabelValues("busy"),
		canceled: unknown.WithLabelValues("canceled"),
		costly:   unknown.WithLabelValues("costly"),
		other:    unknown.WithLabelValues("parser"),
		shared:   counter("shared_parses_total", "Texts that waited for another session's parse of the same shape."),
		exact: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lockkeeper_inspect_unshaped_total",
			Help: "Parsed texts whose facts are not kept by their shape but by the whole text, or not at all where it is long, by reason.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{"no_query", "several", "uncertain", "crowded", unshapedLong, unshapedConstants} {
		m.exact.WithLabelValues(reason)
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(
		counted("cache_hits_total", "Texts whose facts were in the cache.", &m.hits),
		counted("cache_misses_total", "Texts whose facts were not in the cache.", &m.misses),
		counted("cache_locks_total", "Look-ups in the cache that its front did not answer: of what is new there, and of what shares a place.", &i.cache.locked),
		m.slow, m.fromTokens, m.slowTrees, m.seconds, unknown, m.shared, m.exact,
		gauge("cache_entries", "Entries of the cache: shapes, shapes with constants that matter, and whole texts.",
			func() float64 { return float64(i.cache.entries()) }),
		gauge("cache_bytes", "Estimated size of the cache.", func() float64 { return float64(i.cache.sizeBytes()) }),
		gauge("parse_slots_used", "Texts being parsed.", func() float64 { return float64(len(i.slots)) }),
		gauge("parse_slots", "Texts that may be parsed at a time.", func() float64 { return float64(cap(i.slots)) }))
	return m
}

// count counts a batch that could not be classified, by its reason.
func (m *metrics) count(b *Batch) {
	switch {
	case b.FromTokens:
		m.fromTokens.Inc()
	case b.Why == "":
	case b.Costly:
		m.costly.Inc()
	case strings.HasPrefix(b.Why, ReasonLexing):
		m.lexing.Inc()
	case strings.HasPrefix(b.Why, ReasonTooLong):
		m.tooLong.Inc()
	case strings.HasPrefix(b.Why, ReasonBusy):
		m.busy.Inc()
	case strings.HasPrefix(b.Why, ReasonCanceled):
		m.canceled.Inc()
	default:
		m.other.Inc()
	}
}
