// Package boxd is a bad example: its documents say other things than its code.
package boxd

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/conf"
)

type Config struct {
	Server   conf.Server   `hcl:"server,block"`
	Greeting string        `hcl:"greeting,optional" default:"hello"`
	Size     conf.Size     `hcl:"size,optional" conf:"live" default:"2 MB" min:"1 KB" max:"1 GB"`
	Wait     time.Duration `hcl:"wait"`
	Others   []Other       `hcl:"other,block"`
}

type Other struct {
	Name string `hcl:"name,label"`
}

type Silent struct {
	On    bool      `hcl:"on,optional"`
	Small conf.Size `hcl:"small,optional" default:"1 KiB" min:"255"`
	Must  string    `hcl:"must" default:"not"`
}

type notSettings struct {
	On bool `json:"on"`
}

var (
	good = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "shoal_box_good_connections", Help: "Connections, " + "by kind.",
		ConstLabels: prometheus.Labels{"daemon": "boxd"},
	}, []string{"kind"})
	logins = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "shoal_box_logins_total", Help: "Logins, by result and reason.",
	}, []string{"result", "reason"})
	mail   = counter("shoal_box_mail", "Messages.")
	open   = prometheus.NewGauge(prometheus.GaugeOpts{Name: "shoal_box_open_total", Help: "Open."})
	silent = prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_box_silent_total"})
	split  = prometheus.NewCounter(prometheus.CounterOpts{Namespace: "shoal", Name: "split_total", Help: "Split."})
	bad    = "shoal_box_Bad"
)

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func show(read func(name string) float64) float64 {
	return read("shoal_box_logins_total") + read("shoal_box_typo_total")
}
