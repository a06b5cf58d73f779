package sievesession

import "github.com/prometheus/client_golang/prometheus"

// metrics are the counters of a server, all named shoal_managesieve_*.
type metrics struct {
	connections prometheus.Gauge
	accepted    prometheus.Counter
	refused     *prometheus.CounterVec // reason
	logins      *prometheus.CounterVec // result
	commands    *prometheus.CounterVec // command, result
	panics      prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_managesieve_connections", Help: "ManageSieve connections that are open."}),
		accepted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_managesieve_connections_total", Help: "ManageSieve connections that were accepted and greeted."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_managesieve_refused_connections_total",
			Help: "ManageSieve connections that were closed before the greeting: too many in all or from one address, no TLS handshake, shutdown."},
			[]string{"reason"}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_managesieve_logins_total", Help: "Attempts to log in, by result: ok, refused, suspended, throttled, limit, unavailable."},
			[]string{"result"}),
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_managesieve_commands_total", Help: "Commands, by name and result: ok, no."},
			[]string{"command", "result"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_managesieve_panics_total", Help: "ManageSieve sessions that a bug ended."}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.connections, m.accepted, m.refused, m.logins, m.commands, m.panics} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
