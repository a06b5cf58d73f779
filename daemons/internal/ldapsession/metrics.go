package ldapsession

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/ldapwire"
)

type metrics struct {
	connections    *prometheus.CounterVec
	open           prometheus.Gauge
	operations     *prometheus.CounterVec
	entries        prometheus.Counter
	protocolErrors prometheus.Counter
	syncs          prometheus.Gauge
	synced         prometheus.Counter
	cut            *prometheus.CounterVec
	binds          *prometheus.CounterVec
	policy         *prometheus.CounterVec
	upgraded       prometheus.Counter

	// The counters that are used, found without a label lookup: by operation tag and low code.
	fast [256][16]atomic.Pointer[prometheus.Counter]
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		connections: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shoal_vault_connections_total",
			Help: "LDAP connections accepted, by listener."}, []string{"listener"}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "shoal_vault_connections",
			Help: "LDAP connections that are open."}),
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shoal_vault_operations_total",
			Help: "LDAP operations answered, by operation and result code."}, []string{"operation", "result"}),
		entries: prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_vault_entries_returned_total",
			Help: "Entries returned by searches."}),
		protocolErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_vault_protocol_errors_total",
			Help: "LDAP connections ended because the client broke the protocol."}),
		syncs: prometheus.NewGauge(prometheus.GaugeOpts{Name: "shoal_vault_syncs",
			Help: "Content synchronizations (RFC 4533) under way: shadows, and servers that wait for changes."}),
		synced: prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_vault_sync_entries_total",
			Help: "Entries sent in content synchronizations."}),
		cut: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shoal_vault_connections_cut_total",
			Help: "LDAP connections cut off by a limit: idle, unbound (no bind in time), slow (answers not taken)."}, []string{"reason"}),
		binds: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shoal_vault_binds_total",
			Help: "Binds answered, by mechanism (simple or one of SASL) and result code; saslBindInProgress is a step of several."}, []string{"mechanism", "result"}),
		policy: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shoal_vault_password_policy_total",
			Help: "What the password policy did with logins: lock (an account was locked), locked and expired (refused for it), grace (let in after the end)."}, []string{"event"}),
		upgraded: prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_vault_passwords_upgraded_total",
			Help: "Passwords stored in an older form that were brought to today's at a bind."}),
	}
	if reg != nil {
		reg.MustRegister(m.binds, m.policy, m.upgraded, m.connections, m.open, m.operations, m.entries, m.protocolErrors, m.syncs, m.synced, m.cut)
	}
	return m
}

func (m *metrics) count(op ldapwire.Op, code ldapwire.Code) {
	if code >= 0 && code < 16 {
		p := &m.fast[op][code]
		c := p.Load()
		if c == nil {
			n := m.operations.WithLabelValues(op.String(), code.String())
			p.Store(&n)
			c = &n
		}
		(*c).Inc()
		return
	}
	m.operations.WithLabelValues(op.String(), code.String()).Inc()
}

func (m *metrics) bind(mechanism string, code ldapwire.Code) {
	if mechanism == "" {
		mechanism = "other"
	}
	m.binds.WithLabelValues(mechanism, code.String()).Inc()
}
