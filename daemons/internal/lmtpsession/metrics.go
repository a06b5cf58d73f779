package lmtpsession

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	recipients *prometheus.CounterVec
	bytes      prometheus.Counter
	duplicates prometheus.Counter
	duration   prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		recipients: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_lmtp_recipients_total", Help: "Recipients, by result (delivered, refused, deferred)."}, []string{"result"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_lmtp_message_bytes_total", Help: "Bytes of the messages taken in, each message counted once."}),
		duplicates: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_lmtp_duplicates_total", Help: "Second deliveries that were suppressed: the answer to the first had not arrived."}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shoal_lmtp_transaction_duration_seconds", Help: "Time from MAIL to the commits of the message.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60}}),
	}
	if reg != nil {
		reg.MustRegister(m.recipients, m.bytes, m.duplicates, m.duration)
	}
	return m
}
