package control

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	actions *prometheus.CounterVec
	reloads *prometheus.CounterVec
}

// newMetrics registers control's metrics; reg may be nil.
func newMetrics(reg prometheus.Registerer, c *Control) *metrics {
	m := &metrics{
		actions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lockkeeper_actions_total", Help: "Operators' actions and what control did by itself.",
		}, []string{"action", "outcome"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lockkeeper_policy_reloads_total", Help: "Attempts to reload the policy.",
		}, []string{"outcome"}),
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.actions, m.reloads, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "lockkeeper_state_unsaved", Help: "1 while what is in force is not on disk: a restart would undo it.",
	}, func() float64 {
		if c.Unsaved() != nil {
			return 1
		}
		return 0
	}), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "lockkeeper_policy_loaded_timestamp_seconds", Help: "When the policy in force was loaded.",
	}, func() float64 { return float64(c.Policy().LoadedAt.UnixMilli()) / 1000 }))
	return m
}
