package popsession

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counters of a server, all named shoal_pop_*.
type metrics struct {
	connections prometheus.Gauge
	accepted    prometheus.Counter
	refused     *prometheus.CounterVec // reason
	logins      *prometheus.CounterVec // result
	commands    *prometheus.CounterVec // command, result
	retrieved   prometheus.Counter
	removed     prometheus.Counter
	expired     prometheus.Counter
	received    prometheus.Counter
	sent        prometheus.Counter
	timeouts    prometheus.Counter
	panics      prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_pop_connections", Help: "POP3 connections that are open."}),
		accepted: counter("shoal_pop_connections_total", "POP3 connections that were accepted and greeted."),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_pop_refused_connections_total",
			Help: "POP3 connections that were closed before the greeting: too many in all or from one address, no TLS handshake, shutdown."},
			[]string{"reason"}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_pop_logins_total", Help: "Attempts to log in, by result: ok, refused, suspended, throttled, limit, delay, unavailable."},
			[]string{"result"}),
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_pop_commands_total", Help: "Commands, by name and result: ok, err."},
			[]string{"command", "result"}),
		retrieved: counter("shoal_pop_retrieved_messages_total", "Messages sent by RETR."),
		removed:   counter("shoal_pop_removed_messages_total", "Messages removed at QUIT."),
		expired:   counter("shoal_pop_expired_messages_total", "Messages removed at QUIT because they were too old by expire_days, or retrieved with remove_retrieved."),
		received:  counter("shoal_pop_received_bytes_total", "Bytes read from POP3 clients, after TLS."),
		sent:      counter("shoal_pop_sent_bytes_total", "Bytes written to POP3 clients, before TLS."),
		timeouts:  counter("shoal_pop_timeouts_total", "Sessions ended by a time-out: no login, no command, an answer that was not taken."),
		panics:    counter("shoal_pop_panics_total", "Sessions ended by a bug."),
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.connections, m.accepted, m.refused, m.logins, m.commands,
		m.retrieved, m.removed, m.expired, m.received, m.sent, m.timeouts, m.panics} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}
