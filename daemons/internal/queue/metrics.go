package queue

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	accepted, batches, attempts, adopted, double prometheus.Counter
	entries                                      prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		accepted: prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_queue_accepted_total", Help: "Entries taken into the queue."}),
		batches:  prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_queue_batches_total", Help: "Batch files written, each with one sync."}),
		attempts: prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_queue_attempts_total", Help: "Attempts that were finished, whatever their outcome."}),
		adopted:  prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_queue_adopted_total", Help: "Entries taken over from runs that are gone."}),
		double:   prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_queue_double_attempts_total", Help: "Attempts during which another switch took the entry over: it may have been sent twice."}),
		entries:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "shoal_queue_entries", Help: "Entries that this switch owns and keeps in memory."}),
	}
	if r != nil {
		r.MustRegister(m.accepted, m.batches, m.attempts, m.adopted, m.double, m.entries)
	}
	return m
}
