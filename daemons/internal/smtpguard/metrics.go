package smtpguard

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what guards do, SMTP and LMTP alike. One Metrics serves all guards of a process.
type Metrics struct {
	refused    *prometheus.CounterVec
	violations *prometheus.CounterVec
	replies    *prometheus.CounterVec
	timeouts   *prometheus.CounterVec
	handshakes *prometheus.CounterVec
}

// NewMetrics registers the counters; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_smtp_refused_connections_total",
			Help: "SMTP and LMTP connections refused at once, by listener and reason (total, address, early_talker, draining).",
		}, []string{"listener", "reason"}),
		violations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_smtp_violations_total",
			Help: "Breaches of SMTP and LMTP that were refused, by listener and kind.",
		}, []string{"listener", "kind"}),
		replies: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_smtp_replies_total",
			Help: "SMTP and LMTP replies sent, by listener and first digit of the code.",
		}, []string{"listener", "class"}),
		timeouts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_smtp_timeouts_total",
			Help: "SMTP and LMTP connections closed because the client was too slow, by listener.",
		}, []string{"listener"}),
		handshakes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_smtp_tls_handshakes_total",
			Help: "TLS handshakes of SMTP and LMTP connections, by listener and result (ok, failed).",
		}, []string{"listener", "result"}),
	}
	if reg != nil {
		reg.MustRegister(m.refused, m.violations, m.replies, m.timeouts, m.handshakes)
	}
	return m
}
