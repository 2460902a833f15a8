package control

import (
	"github.com/prometheus/client_golang/prometheus"

	"lockkeeper/policy"
)

type metrics struct {
	actions *prometheus.CounterVec
	reloads *prometheus.CounterVec
}

// kinds are the kinds of containment, in the order that they are shown.
var kinds = []policy.ContainmentKind{policy.ReadOnlyMode, policy.FreezeDDL, policy.Pause, policy.ObserveMode}

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
		Name: "lockkeeper_policy_loaded_timestamp_seconds", Help: "When the policy in force was loaded.",
	}, func() float64 { return float64(c.Policy().LoadedAt.UnixMilli()) / 1000 }))
	for _, k := range kinds {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "lockkeeper_containments",
			Help:        "Containments in force, by kind; read-only above 0 means that writes are refused somewhere.",
			ConstLabels: prometheus.Labels{"kind": string(k)},
		}, func() float64 { return float64(c.count(k)) }))
	}
	return m
}

// count returns how many containments of the kind are in force.
func (c *Control) count(k policy.ContainmentKind) int {
	n := 0
	for _, o := range c.Containments() {
		if o.Kind == k {
			n++
		}
	}
	return n
}
