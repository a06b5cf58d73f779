package dirstore

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/ldapwire"
)

// metrics of the store; without a registerer they count for nobody.
type metrics struct {
	writes  *prometheus.CounterVec
	group   prometheus.Histogram
	seconds prometheus.Histogram
}

func (m *metrics) init(s *Store) {
	m.writes = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shoal_vault_writes_total",
		Help: "Changes of the directory by operation (add, modify, delete, rename; of a shadow replicate, remove, context, load; index: a step of the build of indexes) and result (ok, refused, failed)."},
		[]string{"operation", "result"})
	m.group = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "shoal_vault_commit_writes",
		Help: "Writes that shared one commit of the database.", Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}})
	m.seconds = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "shoal_vault_commit_seconds",
		Help: "Time from the beginning of a write transaction to its being on the disk.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)})
	entries := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shoal_vault_entries",
		Help: "Entries of the directory."}, func() float64 { return float64(s.Entries()) })
	size := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shoal_vault_database_bytes",
		Help: "Size of the database file."}, func() float64 { return float64(s.Size()) })
	building := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shoal_vault_index_build_entries",
		Help: "Entries that are still to be entered into indexes that are being built; 0 while none is."},
		func() float64 { b := s.Building(); return float64(b.Total - b.Done) })
	if s.opt.Metrics != nil {
		s.opt.Metrics.MustRegister(m.writes, m.group, m.seconds, entries, size, building)
	}
}

func (m *metrics) wrote(w *Write) {
	op := "context"
	switch w.Op.(type) {
	case *Add:
		op = "add"
	case *Modify:
		op = "modify"
	case *Delete:
		op = "delete"
	case *Rename:
		op = "rename"
	case *Replicate:
		op = "replicate"
	case *Remove:
		op = "remove"
	case *replacement:
		op = "load"
	case *buildStep, *indexList:
		op = "index"
	}
	result := "ok"
	var e *ldapwire.Error
	if errors.As(w.err, &e) {
		result = "refused"
		if e.Code == ldapwire.Unavailable {
			result = "failed"
		}
	}
	m.writes.WithLabelValues(op, result).Inc()
}

func (m *metrics) committed(writes int, took time.Duration) {
	m.group.Observe(float64(writes))
	m.seconds.Observe(took.Seconds())
}
