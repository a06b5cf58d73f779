package migrate

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	logins   *prometheus.CounterVec
	rounds   *prometheus.CounterVec
	messages prometheus.Counter
	bytes    prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shoal_migrate_logins_total",
			Help: "Logins that were tried at an old server, by result: taken (the password is the account's now), right, wrong, unavailable."}, []string{"result"}),
		rounds: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shoal_migrate_rounds_total",
			Help: "Rounds of copying an account's mail, by result: ok, failed."}, []string{"result"}),
		messages: prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_migrate_messages_total", Help: "Messages copied from old servers."}),
		bytes:    prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_migrate_size_bytes_total", Help: "Size of the messages copied from old servers."}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.logins, m.rounds, m.messages, m.bytes} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
