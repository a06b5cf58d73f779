package authn

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	logins  *prometheus.CounterVec
	delay   prometheus.Histogram
	waiting prometheus.Gauge
	revoked prometheus.Counter
	heard   prometheus.Counter
	noted   *prometheus.CounterVec
}

func newMetrics() *metrics {
	return &metrics{
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_authn_logins_total",
			Help: "Logins by result (ok, cached: ok without asking the directory, bad, scope, suspended, throttled, unavailable).",
		}, []string{"result"}),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "shoal_authn_delay_seconds",
			Help:    "Waits imposed on logins because of earlier failures.",
			Buckets: []float64{.25, .5, 1, 2, 4, 8, 16, 32},
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_authn_waiting_logins",
			Help: "Logins that wait for the directory's answer, or because of earlier failures.",
		}),
		revoked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_authn_revoked_sessions_total",
			Help: "Sessions that were ended because their account was suspended, their password changed, or the like.",
		}),
		heard: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_authn_heard_reports_total",
			Help: "Reports of other servers about failed logins.",
		}),
		noted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_authn_last_logins_total",
			Help: "Dates of last logins for the directory, by result (written, dropped).",
		}, []string{"result"}),
	}
}

func (m *metrics) register(r prometheus.Registerer, entries func() float64) error {
	if r == nil {
		return nil
	}
	return errors.Join(r.Register(m.logins), r.Register(m.delay), r.Register(m.waiting), r.Register(m.revoked), r.Register(m.heard), r.Register(m.noted), r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shoal_authn_cache_entries",
		Help: "Verified credentials that are remembered.",
	}, entries)))
}

func (m *metrics) count(cached bool, err error) {
	result := resultOf(err)
	if err == nil && cached {
		result = "cached"
	}
	m.logins.WithLabelValues(result).Inc()
}
