package relay

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	active, held  prometheus.Gauge
	recipients    *prometheus.CounterVec
	postponed     *prometheus.CounterVec
	notifications *prometheus.CounterVec
	doubles       prometheus.Counter
	delay         prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_relay_active_entries", Help: "Queue entries being tried, or waiting for a place at their destination."}),
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_relay_destinations_away", Help: "Destinations that could not be reached the last time."}),
		recipients: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_relay_recipients_total", Help: "Outcomes of attempts, one for each recipient (delivered, relayed, expanded, failed, deferred)."}, []string{"result"}),
		postponed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_relay_postponed_total", Help: "Attempts that were not made, because the destination was away or busy."}, []string{"reason"}),
		notifications: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_relay_notifications_total", Help: "Reports to senders, by what they are about in the first place (failed, delayed, success)."}, []string{"kind"}),
		doubles: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_relay_double_bounces_total", Help: "Reports that could not be delivered and were dropped."}),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shoal_relay_delay_seconds", Help: "Time from the acceptance of a message until a recipient has it.",
			Buckets: []float64{.1, .5, 1, 5, 30, 60, 300, 900, 3600, 14400, 86400, 432000}}),
	}
	if r != nil {
		r.MustRegister(m.active, m.held, m.recipients, m.postponed, m.notifications, m.doubles, m.delay)
	}
	return m
}
