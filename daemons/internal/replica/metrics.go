package replica

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	connects  *prometheus.CounterVec
	changes   *prometheus.CounterVec
	refreshes *prometheus.CounterVec
	refused   prometheus.Counter
	delay     prometheus.Histogram
}

func newMetrics(r *Replica) *metrics {
	m := &metrics{
		connects: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shoal_replica_connects_total",
			Help: "Attempts of this shadow to connect to its provider, by result (ok, failed)."}, []string{"result"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shoal_replica_changes_total",
			Help: "Entries got from the provider and entries removed, by kind (entry, removal)."}, []string{"kind"}),
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shoal_replica_refreshes_total",
			Help: "Refreshes completed, by kind (whole, present, delete)."}, []string{"kind"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_replica_refused_total",
			Help: "Entries of the provider that could not be taken: the log says why."}),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "shoal_replica_change_delay_seconds",
			Help:    "Time from a change at the provider (its CSN, by the provider's clock) to its being on the disk here (by ours).",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}),
	}
	lag := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shoal_replica_lag_seconds",
		Help: "For how long it has not been known that everything of the provider is here; 0 while it is."},
		func() float64 { return r.Lag().Seconds() })
	following := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shoal_replica_following_state",
		Help: "1 while changes of the provider come as they are made, 0 while connecting or refreshing."},
		func() float64 {
			if r.Status().State == Following {
				return 1
			}
			return 0
		})
	if r.opt.Metrics != nil {
		r.opt.Metrics.MustRegister(m.connects, m.changes, m.refreshes, m.refused, m.delay, lag, following)
	}
	return m
}
