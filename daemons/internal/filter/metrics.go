package filter

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	runs     *prometheus.CounterVec
	sent     prometheus.Counter
	duration prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_sieve_runs_total", Help: "Messages that went through an account's scripts, by result: ok, failed (kept in the INBOX)."},
			[]string{"result"}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_sieve_sent_messages_total", Help: "Messages that scripts sent: redirects, vacation replies, notifications."}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shoal_sieve_duration_seconds", Help: "Time of the scripts of one message, with what they did.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60}}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.runs, m.sent, m.duration} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
