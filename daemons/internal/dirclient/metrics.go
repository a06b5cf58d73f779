package dirclient

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	retries  prometheus.Counter
	up       *prometheus.GaugeVec
	inUse    *prometheus.GaugeVec
	cache    *prometheus.CounterVec
}

func newMetrics() *metrics {
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_dirclient_requests_total",
			Help: "Questions sent to the directory, by operation (search, bind) and result (ok, none, refused, error).",
		}, []string{"op", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "shoal_dirclient_request_duration_seconds",
			Help:    "Time until the directory's answer, retries included, by operation.",
			Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}, []string{"op"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_dirclient_retries_total",
			Help: "Reads that were tried again because a connection broke or a server could not answer.",
		}),
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "shoal_dirclient_server_up_state",
			Help: "1 while the directory server of this URI is in use, 0 while it is only probed.",
		}, []string{"uri"}),
		inUse: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "shoal_dirclient_busy_connections",
			Help: "Connections with a request on the way, by purpose (search, bind).",
		}, []string{"purpose"}),
		cache: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_dirclient_cache_lookups_total",
			Help: "Lookups by kind (account, alias, id, domain, servers, volumes) and how they were answered (hit, negative, miss, joined, stale; a stale one is counted as a miss too).",
		}, []string{"kind", "result"}),
	}
}

func (m *metrics) register(r prometheus.Registerer, entries func() float64) error {
	if r == nil {
		return nil
	}
	return errors.Join(
		r.Register(m.requests), r.Register(m.seconds), r.Register(m.retries),
		r.Register(m.up), r.Register(m.inUse), r.Register(m.cache),
		r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shoal_dirclient_cache_entries",
			Help: "Answers in the cache, all kinds together.",
		}, entries)),
	)
}

// done counts one finished request.
func (m *metrics) done(op string, start time.Time, err error) {
	result := "ok"
	switch {
	case err == nil:
	case errors.Is(err, ErrNoSuchAccount), errors.Is(err, ErrNoSuchAlias), errors.Is(err, ErrNoSuchDomain), errors.Is(err, ErrNoSuchEntry):
		result = "none"
	case errors.Is(err, ErrInvalidCredentials):
		result = "refused"
	default:
		result = "error"
	}
	m.requests.WithLabelValues(op, result).Inc()
	m.seconds.WithLabelValues(op).Observe(time.Since(start).Seconds())
}
