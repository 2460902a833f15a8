package console

import "github.com/prometheus/client_golang/prometheus"

type metrics struct{ logins, commands *prometheus.CounterVec }

// newMetrics registers the console's metrics; reg may be nil. Commands that
// are not known are counted as one.
func newMetrics(reg prometheus.Registerer, c *Console) *metrics {
	m := &metrics{
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lockkeeper_console_logins_total", Help: "Logins to the psql console.",
		}, []string{"outcome"}),
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lockkeeper_console_commands_total", Help: "Commands of the psql console; those that are not known are one.",
		}, []string{"command", "outcome"}),
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.logins, m.commands, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "lockkeeper_console_clients", Help: "Clients of the psql console.",
	}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(len(c.clients))
	}))
	return m
}
