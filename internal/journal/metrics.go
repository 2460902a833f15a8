package journal

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	written prometheus.Counter
	dropped prometheus.Counter
	gaps    prometheus.Counter
	logged  prometheus.Counter
	seconds prometheus.Histogram
}

// newMetrics registers the journal's metrics; reg may be nil.
func newMetrics(reg prometheus.Registerer, queued func() float64) *metrics {
	m := &metrics{
		written: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "lockkeeper_journal_written_total", Help: "Entries written to the journal.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "lockkeeper_journal_dropped_total", Help: "Entries that the journal had no room for; gap entries carry their count.",
		}),
		gaps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "lockkeeper_journal_gap_total", Help: "Gap entries written to the journal.",
		}),
		logged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "lockkeeper_journal_logged_total", Help: "Refusals and actions written to the log because the journal could not take them.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "lockkeeper_journal_write_seconds", Help: "Time to commit one batch of entries, failures included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}),
	}
	queue := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "lockkeeper_journal_queue_entries", Help: "Entries waiting to be written.",
	}, queued)
	if reg != nil {
		reg.MustRegister(m.written, m.dropped, m.gaps, m.logged, m.seconds, queue)
	}
	return m
}
