package popsession

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"shoal/daemons/internal/acceptor"
	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/sasl"
)

// Server serves POP3 to any number of connections.
type Server struct {
	*acceptor.Server
	opt   Options
	log   *slog.Logger
	clock clock.Clock
	m     *metrics
	sasl  *sasl.Server
	lim   atomic.Pointer[Limits]
	came  arrivals
}

// New makes a server. It does nothing until Serve is called.
func New(opt Options) (*Server, error) {
	if opt.Store == nil || opt.Auth == nil || opt.Log == nil {
		return nil, errors.New("popsession: Options.Store, Auth and Log are required")
	}
	if opt.Clock == nil {
		opt.Clock = clock.System()
	}
	m, err := newMetrics(opt.Metrics)
	if err != nil {
		return nil, fmt.Errorf("popsession: metrics: %w", err)
	}
	s := &Server{opt: opt, log: opt.Log, clock: opt.Clock, m: m, sasl: sasl.New(opt.Auth)}
	s.SetLimits(opt.Limits)
	s.Server, err = acceptor.New(acceptor.Options{
		Protocol: "POP3", Handle: func(c *acceptor.Conn) { newSession(s, c).run() }, TLS: opt.TLS, Log: opt.Log, Clock: opt.Clock,
		Limits: func() acceptor.Limits {
			l := s.limits()
			return acceptor.Limits{Connections: l.MaxConnections, PerAddress: l.MaxPerAddress, PerUser: l.MaxPerUser, Handshake: l.LoginTimeout}
		},
		Metrics: acceptor.Metrics{Connections: m.connections, Accepted: m.accepted, Refused: m.refused, Panics: m.panics},
	})
	return s, err
}

// SetLimits changes the limits for what begins from now on: a reload of the configuration.
func (s *Server) SetLimits(l Limits) {
	if l == (Limits{}) {
		l = DefaultLimits()
	}
	s.lim.Store(&l)
}

func (s *Server) limits() *Limits { return s.lim.Load() }
