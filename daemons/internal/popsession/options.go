package popsession

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sasl"
)

// Options are what a server is made of. Store, Auth and Log are required.
type Options struct {
	Store   Store
	Auth    sasl.Authenticator    // *authn.Authenticator
	TLS     *tls.Config           // for STLS and for ServeTLS; nil: neither is offered
	Server  string                // name of this server, in the greeting
	Log     *slog.Logger          // events of sessions, and the errors that end them
	Metrics prometheus.Registerer // nil: metrics are counted and not shown
	Clock   clock.Clock           // nil: the system's
	Limits  Limits                // a zero value stands for the defaults as a whole
}

// Store is the message store: *mailstore.Store.
type Store interface {
	Account(ctx context.Context, volume, accountID string) (*mailstore.Account, error)
}

// Limits are the settings of POP3: each one an attribute of the block pop in the configuration of boxd,
// with its default beside it.
type Limits struct {
	// AllowPlain permits a login without TLS: for a network that nobody listens to.
	AllowPlain bool `hcl:"allow_plain,optional" default:"false"`
	// LoginTimeout ends a connection that has not logged in.
	LoginTimeout time.Duration `hcl:"login_timeout,optional" default:"1m" min:"1s" max:"1h"`
	// IdleTimeout ends a connection that sends no command: RFC 1939 §3 asks for at least 10 minutes.
	IdleTimeout time.Duration `hcl:"idle_timeout,optional" default:"10m" min:"1m" max:"24h"`
	// WriteTimeout bounds the wait for a client that does not take its answer.
	WriteTimeout time.Duration `hcl:"write_timeout,optional" default:"2m" min:"1s" max:"1h"`
	// CommandTimeout bounds the work for one command that waits for the store or the directory.
	CommandTimeout time.Duration `hcl:"command_timeout,optional" default:"5m" min:"1s" max:"1h"`
	// BadCommands is how many commands in a row that are no POP3 end the connection.
	BadCommands int `hcl:"bad_commands,optional" default:"10" min:"1" max:"1000"`
	// LoginFailures is how many refused logins end the connection.
	LoginFailures int `hcl:"login_failures,optional" default:"4" min:"1" max:"1000"`
	// PreLoginCommands is how many commands without a login end the connection.
	PreLoginCommands int `hcl:"pre_login_commands,optional" default:"50" min:"2" max:"10000"`
	// MaxConnections bounds the POP3 connections of the server.
	MaxConnections int `hcl:"max_connections,optional" default:"10000" min:"1" max:"10000000"`
	// MaxPerAddress bounds the POP3 connections from one client address.
	MaxPerAddress int `hcl:"max_connections_per_address,optional" default:"200" min:"1" max:"10000000"`
	// MaxPerUser bounds the POP3 connections that are logged in to one account.
	MaxPerUser int `hcl:"max_connections_per_user,optional" default:"20" min:"1" max:"1000000"`
	// LoginDelay is what must lie between two logins of an account at this server, in whole seconds (LOGIN-DELAY, RFC 2449 §6.5); 0:
	// nothing.
	LoginDelay time.Duration `hcl:"login_delay,optional" default:"0s" min:"0s" max:"24h"`
	// ExpireDays is after how many days in the INBOX a message that was read is removed, at the end of a session with QUIT (EXPIRE, RFC
	// 2449 §6.7); 0: never.
	ExpireDays int `hcl:"expire_days,optional" default:"0" min:"0" max:"36500"`
	// RemoveRetrieved removes at QUIT what the session has retrieved: EXPIRE 0.
	RemoveRetrieved bool `hcl:"remove_retrieved,optional" default:"false"`
	// LineLimit bounds a command line; RFC 2449 §4 asks for 255 bytes.
	LineLimit conf.Size `hcl:"line_limit,optional" default:"1 KiB" min:"256 B" max:"64 KiB"`
	// SASLLimit bounds a line of a SASL exchange; RFC 5034 §4 asks for 12,288 bytes.
	SASLLimit conf.Size `hcl:"sasl_limit,optional" default:"12 KiB" min:"1 KiB" max:"64 KiB"`
}

// DefaultLimits are the limits of a server whose configuration says nothing.
func DefaultLimits() Limits {
	var l Limits
	conf.SetDefaults(&l)
	return l
}

// loginDelay is LoginDelay in whole seconds, which is how it is announced.
func (l *Limits) loginDelay() time.Duration {
	return (l.LoginDelay + time.Second - 1).Truncate(time.Second)
}
