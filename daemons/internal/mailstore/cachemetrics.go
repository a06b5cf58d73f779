package mailstore

import "github.com/prometheus/client_golang/prometheus"

// packMetrics count what becomes of derived records.
type packMetrics struct {
	hits, misses, read, written, writtenBytes, rejected, failed prometheus.Counter
	bytes                                                       prometheus.Gauge
}

func newPackMetrics(r prometheus.Registerer) (packMetrics, error) {
	var err error
	register := func(c prometheus.Collector) {
		if r != nil {
			if e := r.Register(c); e != nil && err == nil {
				err = e
			}
		}
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		register(c)
		return c
	}
	m := packMetrics{
		hits:         counter("shoal_store_summary_hits_total", "Summaries of messages that were asked for and found in memory or in a pack."),
		misses:       counter("shoal_store_summary_misses_total", "Summaries of messages that were asked for and had to be made from the message."),
		read:         counter("shoal_store_summary_packs_read_total", "Packs of summaries opened to read their head, or all of them."),
		written:      counter("shoal_store_summary_packs_written_total", "Packs of summaries written."),
		writtenBytes: counter("shoal_store_summary_packs_written_bytes_total", "Bytes of the packs of summaries that were written."),
		rejected:     counter("shoal_store_summary_packs_rejected_total", "Packs of summaries that were damaged: removed, and made again from the messages."),
		failed:       counter("shoal_store_summary_packs_failed_total", "Times that packs of summaries could not be read or written (an error of the volume, or a volume that is nearly full) and were left alone for a while."),
		bytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_store_summary_bytes", Help: "Memory taken by summaries, bounded by store.summary_cache."}),
	}
	register(m.bytes)
	return m, err
}
