package deliver

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	open      prometheus.Gauge
	failures  prometheus.Counter
	offered   *prometheus.CounterVec
	delivered *prometheus.CounterVec
	duration  prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_deliver_connections_open", Help: "LMTP connections to boxes, in use and waiting."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_deliver_failures_total", Help: "LMTP servers found not to answer."}),
		offered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_deliver_offered_total",
			Help: "Recipients offered over LMTP, by answer (ok, refused, deferred, unavailable)."}, []string{"result"}),
		delivered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_deliver_recipients_total",
			Help: "Outcomes of deliveries, one for each recipient (ok, refused, deferred, unavailable, unknown, aborted)."}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shoal_deliver_duration_seconds", Help: "Time from the first RCPT to the last reply.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60}}),
	}
	if reg != nil {
		reg.MustRegister(m.open, m.failures, m.offered, m.delivered, m.duration)
	}
	return m
}

// outcome names the result of a delivery or an offer for the counters.
func outcome(err error) string {
	var refused *Error
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrUnknown):
		return "unknown"
	case errors.Is(err, ErrAborted):
		return "aborted"
	case errors.As(err, &refused) && !errors.Is(err, ErrUnavailable):
		if refused.Temporary() {
			return "deferred"
		}
		return "refused"
	case errors.Is(err, ErrBareLine), errors.Is(err, ErrNeedsUTF8):
		return "refused"
	}
	return "unavailable"
}
