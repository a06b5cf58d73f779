package imapsession

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counters of a server, all named shoal_imap_*.
type metrics struct {
	connections prometheus.Gauge
	idling      prometheus.Gauge
	accepted    prometheus.Counter
	refused     *prometheus.CounterVec // reason
	logins      *prometheus.CounterVec // result
	commands    *prometheus.CounterVec // command, result
	received    prometheus.Counter
	sent        prometheus.Counter
	appended    prometheus.Counter
	pushes      prometheus.Counter
	timeouts    prometheus.Counter
	panics      prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_imap_connections", Help: "IMAP connections that are open."}),
		idling: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_imap_idling_connections", Help: "IMAP connections with an IDLE command in progress."}),
		accepted: counter("shoal_imap_connections_total", "IMAP connections that were accepted and greeted."),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_imap_refused_connections_total",
			Help: "IMAP connections that were closed before the greeting: too many in all or from one address, no TLS handshake, no PROXY header, shutdown."},
			[]string{"reason"}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_imap_logins_total", Help: "Attempts to log in, by result: ok, refused, suspended, throttled, limit, unavailable."},
			[]string{"result"}),
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_imap_commands_total", Help: "Commands, by name and result: ok, no, bad."},
			[]string{"command", "result"}),
		received: counter("shoal_imap_received_bytes_total", "Bytes read from IMAP clients, after TLS."),
		sent:     counter("shoal_imap_sent_bytes_total", "Bytes written to IMAP clients, before TLS."),
		appended: counter("shoal_imap_appended_messages_total", "Messages stored by APPEND."),
		pushes:   counter("shoal_imap_pushes_total", "Times that changes were told to a client in IDLE or after NOTIFY."),
		timeouts: counter("shoal_imap_timeouts_total", "Sessions ended by a time-out: no login, no command, slow input or output."),
		panics:   counter("shoal_imap_panics_total", "Sessions ended by a bug."),
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.connections, m.idling, m.accepted, m.refused, m.logins,
		m.commands, m.received, m.sent, m.appended, m.pushes, m.timeouts, m.panics} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}
