package kit

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// processStats are the metrics of the process itself.
type processStats struct {
	reloads  *prometheus.CounterVec
	loaded   prometheus.Gauge
	draining prometheus.Gauge
}

func newProcessStats(reg prometheus.Registerer, daemon string, expiry func() time.Time) *processStats {
	s := &processStats{
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_process_reloads_total",
			Help: "Reloads of the configuration, by result: applied or refused.",
		}, []string{"result"}),
		loaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_process_config_loaded_timestamp_seconds",
			Help: "When the configuration in use was loaded, as a Unix time.",
		}),
		draining: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_process_draining_state",
			Help: "1 while the daemon drains, otherwise 0.",
		}),
	}
	s.reloads.WithLabelValues("applied")
	s.reloads.WithLabelValues("refused")
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "shoal_build_info",
		Help: "Always 1; its labels say what is running.",
		ConstLabels: prometheus.Labels{
			"daemon": daemon, "version": Version, "commit": revision(), "go": runtime.Version(),
		},
	})
	build.Set(1)
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		s.reloads, s.loaded, s.draining, build)
	if expiry != nil {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shoal_process_certificate_expiry_timestamp_seconds",
			Help: "When the certificate of this server's identity expires, as a Unix time.",
		}, func() float64 { return float64(expiry().Unix()) }))
	}
	return s
}

// listenerStats are the metrics of all listeners.
type listenerStats struct {
	open     *prometheus.GaugeVec
	accepted *prometheus.CounterVec
	refused  *prometheus.CounterVec
}

func newListenerStats(reg prometheus.Registerer) *listenerStats {
	s := &listenerStats{
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "shoal_listener_open_connections",
			Help: "Connections that are open now, by listener.",
		}, []string{"listener"}),
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_listener_accepted_connections_total",
			Help: "Connections that were accepted and handed to the role, by listener.",
		}, []string{"listener"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_listener_refused_connections_total",
			Help: "Connections that were refused, by listener and reason: limit (max_connections reached), " +
				"source (not one of proxy_from), header (PROXY header missing, late or wrong), resources (no file descriptor left).",
		}, []string{"listener", "reason"}),
	}
	if reg != nil {
		reg.MustRegister(s.open, s.accepted, s.refused)
	}
	return s
}
