package sievesession

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/acceptor"
	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sasl"
)

// Options are what a server is made of. Store, Auth and Log are required.
type Options struct {
	Store   Store
	Auth    sasl.Authenticator // *authn.Authenticator
	TLS     *tls.Config        // for STARTTLS and for ServeTLS; nil: neither is offered
	Server  string             // name of this server, in the capabilities
	Without []string           // Sieve extensions that are not offered
	// Redirects is how many redirects one message may have, which clients are told.
	Redirects int
	Log       *slog.Logger          // events of sessions, and the errors that end them
	Metrics   prometheus.Registerer // nil: metrics are counted and not shown
	Clock     clock.Clock           // nil: the system's
	Limits    Limits                // a zero value stands for the defaults as a whole
}

// Store is the message store: *mailstore.Store.
type Store interface {
	Account(ctx context.Context, volume, accountID string) (*mailstore.Account, error)
}

// Limits are the settings of ManageSieve: each one an attribute of the block managesieve in the configuration of boxd,
// with its default beside it.
type Limits struct {
	// AllowPlain permits a login without TLS: for a network that nobody listens to.
	AllowPlain bool `hcl:"allow_plain,optional" default:"false"`
	// LoginTimeout ends a connection that has not logged in.
	LoginTimeout time.Duration `hcl:"login_timeout,optional" default:"1m" min:"1s" max:"1h"`
	// IdleTimeout ends a connection that sends no command: RFC 5804 §1.2 asks for at least 30 minutes.
	IdleTimeout time.Duration `hcl:"idle_timeout,optional" default:"30m" min:"1m" max:"24h"`
	// WriteTimeout bounds the wait for a client that does not take its answer.
	WriteTimeout time.Duration `hcl:"write_timeout,optional" default:"2m" min:"1s" max:"1h"`
	// CommandTimeout bounds the work for one command that waits for the store or the directory.
	CommandTimeout time.Duration `hcl:"command_timeout,optional" default:"5m" min:"1s" max:"1h"`
	// BadCommands is how many malformed commands in a row end the connection.
	BadCommands int `hcl:"bad_commands,optional" default:"10" min:"1" max:"1000"`
	// LoginFailures is how many refused logins end the connection.
	LoginFailures int `hcl:"login_failures,optional" default:"4" min:"1" max:"1000"`
	// PreLoginCommands is how many commands without a login end the connection.
	PreLoginCommands int `hcl:"pre_login_commands,optional" default:"50" min:"2" max:"10000"`
	// MaxConnections bounds the ManageSieve connections of the server.
	MaxConnections int `hcl:"max_connections,optional" default:"1000" min:"1" max:"10000000"`
	// MaxPerAddress bounds the ManageSieve connections from one client address.
	MaxPerAddress int `hcl:"max_connections_per_address,optional" default:"200" min:"1" max:"10000000"`
	// MaxPerUser bounds the ManageSieve connections that are logged in to one account.
	MaxPerUser int `hcl:"max_connections_per_user,optional" default:"20" min:"1" max:"1000000"`
	// ScriptSize bounds one script.
	ScriptSize conf.Size `hcl:"script_size,optional" default:"256 KiB" min:"1 KiB" max:"16 MiB"`
	// Scripts bounds the scripts of an account.
	Scripts int `hcl:"scripts,optional" default:"50" min:"1" max:"10000"`
}

// DefaultLimits are the limits of a server whose configuration says nothing.
func DefaultLimits() Limits {
	var l Limits
	conf.SetDefaults(&l)
	return l
}

// Server serves ManageSieve to any number of connections.
type Server struct {
	*acceptor.Server
	opt   Options
	log   *slog.Logger
	clock clock.Clock
	m     *metrics
	sasl  *sasl.Server
	lim   atomic.Pointer[Limits]
}

// New makes a server. It does nothing until Serve is called.
func New(opt Options) (*Server, error) {
	if opt.Store == nil || opt.Auth == nil || opt.Log == nil {
		return nil, errors.New("sievesession: Options.Store, Auth and Log are required")
	}
	if opt.Clock == nil {
		opt.Clock = clock.System()
	}
	m, err := newMetrics(opt.Metrics)
	if err != nil {
		return nil, fmt.Errorf("sievesession: metrics: %w", err)
	}
	s := &Server{opt: opt, log: opt.Log, clock: opt.Clock, m: m, sasl: sasl.New(opt.Auth)}
	s.SetLimits(opt.Limits)
	s.Server, err = acceptor.New(acceptor.Options{
		Protocol: "ManageSieve", Handle: func(c *acceptor.Conn) { newSession(s, c).run() }, TLS: opt.TLS, Log: opt.Log, Clock: opt.Clock,
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
