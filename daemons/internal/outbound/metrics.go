package outbound

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	open        prometheus.Gauge
	connections *prometheus.CounterVec
	reused      prometheus.Counter
	recipients  *prometheus.CounterVec
	duration    prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_outbound_connections_open", Help: "SMTP connections to other systems, in use and waiting."}),
		connections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_outbound_connections_total", Help: "Connection attempts to other systems, by result (plain, tls, failed)."}, []string{"result"}),
		reused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_outbound_reused_total", Help: "Messages that went over a connection that was open already."}),
		recipients: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_outbound_recipients_total", Help: "Recipients offered to other systems, by outcome (ok, refused, deferred)."}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shoal_outbound_duration_seconds", Help: "Time of one message to one destination, connecting included.",
			Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}}),
	}
	if r != nil {
		r.MustRegister(m.open, m.connections, m.reused, m.recipients, m.duration)
	}
	return m
}
