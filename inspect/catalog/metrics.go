package catalog

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the catalogs'; see docs/reference/metrics.
type metrics struct {
	ok, failed, tooMany prometheus.Counter
	refused             prometheus.Counter
	seconds             prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, c *Catalogs) *metrics {
	looks := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "lockkeeper_catalog_looks_total",
		Help: "Looks into the catalogs of a database, by outcome: ok, failed, too_large (more than limits.catalog_relations).",
	}, []string{"outcome"})
	m := &metrics{
		ok: looks.WithLabelValues("ok"), failed: looks.WithLabelValues("failed"), tooMany: looks.WithLabelValues("too_large"),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "lockkeeper_catalog_limit_total", Help: "Sessions without a catalog because limits.catalog_databases are kept already.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "lockkeeper_catalog_load_seconds", Help: "Time that reading the catalogs of one database took.",
			Buckets: prometheus.ExponentialBuckets(1e-3, 4, 8),
		}),
	}
	if reg == nil {
		return m
	}
	gauge := func(name, help string, value func([]State) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "lockkeeper_catalog_" + name, Help: help}, func() float64 { return float64(value(c.States())) })
	}
	reg.MustRegister(looks, m.refused, m.seconds,
		gauge("databases", "Databases whose catalog is kept.", func(all []State) int { return len(all) }),
		gauge("stale_databases", "Databases in use whose catalog is not there, or is not up to date: statements are judged by the names in their text.", stale),
		gauge("relations", "Tables, views and indexes that are kept, of all databases.", func(all []State) int {
			return sum(all, func(s *State) int { return s.Relations })
		}),
		gauge("functions", "Names of users' functions and operators that are kept, of all databases.", func(all []State) int {
			return sum(all, func(s *State) int { return s.Functions })
		}))
	return m
}

func stale(all []State) int {
	n := 0
	for i := range all {
		if all[i].Sessions > 0 && !all[i].Fresh {
			n++
		}
	}
	return n
}

func sum(all []State, of func(*State) int) int {
	n := 0
	for i := range all {
		n += of(&all[i])
	}
	return n
}

func (m *metrics) count(err error) {
	switch {
	case err == nil:
		m.ok.Inc()
	case errors.Is(err, errTooMany):
		m.tooMany.Inc()
	default:
		m.failed.Inc()
	}
}
