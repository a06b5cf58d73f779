package smtpsession

import (
	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/smtpguard"
)

// Metrics counts for all SMTP listeners of a process.
type Metrics struct {
	guard      *smtpguard.Metrics
	recipients *prometheus.CounterVec
	messages   *prometheus.CounterVec
	queued     *prometheus.CounterVec
	bytes      *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	logins     *prometheus.CounterVec
}

// NewMetrics registers the counters; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		guard: smtpguard.NewMetrics(reg),
		recipients: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_smtp_recipients_total", Help: "RCPT commands, by listener and answer (accepted, refused, deferred)."}, []string{"listener", "result"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_smtp_messages_total", Help: "Messages, by listener and answer (accepted, refused, deferred)."}, []string{"listener", "result"}),
		queued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_smtp_queued_total", Help: "Messages that went into the queue, for some or all of their recipients, by listener."}, []string{"listener"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_smtp_message_bytes_total", Help: "Bytes of accepted messages, by listener."}, []string{"listener"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "shoal_smtp_transaction_duration_seconds", Help: "Time from MAIL to the reply to the message, by listener.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60}}, []string{"listener"}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_smtp_logins_total", Help: "Logins, by listener and result (ok, bad, suspended, unavailable)."}, []string{"listener", "result"}),
	}
	if reg != nil {
		reg.MustRegister(m.recipients, m.messages, m.queued, m.bytes, m.duration, m.logins)
	}
	return m
}
