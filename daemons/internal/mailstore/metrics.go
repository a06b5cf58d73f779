package mailstore

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	commits      prometheus.Counter
	committedOps prometheus.Counter
	races        prometheus.Counter
	fenced       prometheus.Counter
	hintsSent    prometheus.Counter
	hintsTaken   prometheus.Counter
	snapshots    prometheus.Counter
	removed      prometheus.Counter
	packs        packMetrics
	flushes      prometheus.Counter
	overdue      *prometheus.GaugeVec // by volume
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	var err error
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		if r != nil {
			if e := r.Register(c); e != nil && err == nil {
				err = e
			}
		}
		return c
	}
	m := &metrics{
		commits:      counter("shoal_store_commits_total", "Records committed to mailbox and account logs."),
		committedOps: counter("shoal_store_commit_ops_total", "Operations in those records: more than commits when several went into one."),
		races:        counter("shoal_store_commit_races_total", "Attempts to commit that another server's commit came before."),
		fenced:       counter("shoal_store_commit_fenced_total", "Attempts to commit into a segment of a log that is being deleted: this server had been far behind."),
		hintsSent:    counter("shoal_store_hints_sent_total", "Hints sent to other servers with a live interest in a mailbox."),
		hintsTaken:   counter("shoal_store_hints_received_total", "Hints received from other servers."),
		snapshots:    counter("shoal_store_snapshots_total", "Snapshots written."),
		flushes:      counter("shoal_store_flushes_total", "Flushes of the journals of local volumes (ext4, XFS): fewer than commits when several shared one."),
		removed:      counter("shoal_store_files_removed_total", "Files removed by compaction, collection and purge."),
	}
	m.overdue = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "shoal_store_overdue_calls", Help: "Calls to a volume that have not come back within the time limit: at 4 the volume's accounts are refused until it answers."}, []string{"volume"})
	if r != nil && err == nil {
		err = r.Register(m.overdue)
	}
	packs, e := newPackMetrics(r)
	m.packs = packs
	return m, errors.Join(err, e)
}
