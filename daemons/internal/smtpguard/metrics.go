package smtpguard

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what guards do. One Metrics serves all guards of a component.
type Metrics struct {
	open       *prometheus.GaugeVec
	accepted   *prometheus.CounterVec
	refused    *prometheus.CounterVec
	violations *prometheus.CounterVec
	replies    *prometheus.CounterVec
	timeouts   *prometheus.CounterVec
	handshakes *prometheus.CounterVec
}

// NewMetrics registers the counters of a component ("smtp" or "lmtp"); reg may be nil.
func NewMetrics(reg prometheus.Registerer, component string) *Metrics {
	name := func(s string) string { return prometheus.BuildFQName("shoal", component, s) }
	m := &Metrics{
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: name("connections_open"), Help: "Connections open now, by listener."}, []string{"listener"}),
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: name("connections_total"), Help: "Connections accepted, by listener."}, []string{"listener"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: name("connections_refused_total"),
			Help: "Connections refused at once, by listener and reason (total, address, early_talker, draining)."}, []string{"listener", "reason"}),
		violations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: name("violations_total"),
			Help: "Breaches of the protocol that were refused, by listener and kind."}, []string{"listener", "kind"}),
		replies: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: name("replies_total"), Help: "Replies sent, by listener and first digit of the code."}, []string{"listener", "class"}),
		timeouts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: name("timeouts_total"), Help: "Connections closed because the client was too slow, by listener."}, []string{"listener"}),
		handshakes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: name("tls_handshakes_total"), Help: "TLS handshakes, by listener and result (ok, failed)."}, []string{"listener", "result"}),
	}
	if reg != nil {
		reg.MustRegister(m.open, m.accepted, m.refused, m.violations, m.replies, m.timeouts, m.handshakes)
	}
	return m
}
