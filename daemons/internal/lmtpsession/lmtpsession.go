// Package lmtpsession takes mail in over LMTP (RFC 2033) and stores it: one staged file for a message,
// one commit and one reply for each recipient.
package lmtpsession

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
)

// Accounts answers which account an address belongs to (*dirclient.Client does). The address is a
// mailaddr Key. Errors: dirclient.ErrNoSuchAccount, ErrNoSuchDomain; everything else is temporary.
type Accounts interface {
	Account(ctx context.Context, address string) (*dirclient.Account, error)
}

// Store takes messages (*mailstore.Store does).
type Store interface {
	Account(ctx context.Context, volume, accountID string) (*mailstore.Account, error)
	Stage(ctx context.Context, volume string, r io.Reader, max int64) (*mailstore.Staged, error)
	Deliver(ctx context.Context, m *mailstore.Staged, targets []mailstore.Target) []mailstore.Result
}

// Options of New. Hostname, Store and Accounts are required, and TLS unless Plaintext.
type Options struct {
	Hostname string // what the greeting and LHLO's reply say
	Store    Store
	Accounts Accounts    // recipients
	TLS      *tls.Config // for STARTTLS; it demands a client certificate (pki ServerTLS("switch", "operator"))

	// Plaintext lets MAIL in without STARTTLS. For tests.
	Plaintext bool

	MaxMessageBytes          int64         // 0: DefaultMaxMessageBytes
	MaxRecipients            int           // per transaction; 0: DefaultMaxRecipients
	MaxConnections           int           // 0: DefaultMaxConnections
	MaxConnectionsPerAddress int           // 0: no limit of its own
	ReadTimeout              time.Duration // for each read; 0: DefaultReadTimeout

	Log     *slog.Logger
	Metrics prometheus.Registerer
	Clock   clock.Clock
}

// Defaults of Options.
const (
	DefaultMaxMessageBytes = 100 << 20
	DefaultMaxRecipients   = 1000
	DefaultMaxConnections  = 10000
	DefaultReadTimeout     = 5 * time.Minute
)

// Server serves LMTP on any number of listeners.
type Server struct{}

// New builds a server. It refuses options that cannot work.
func New(o Options) (*Server, error) { return &Server{}, nil }

// Serve accepts connections until Shutdown or Close, and returns nil then. It closes l.
func (s *Server) Serve(l net.Listener) error { return nil }

// Shutdown stops accepting, answers 421 to each connection as soon as it is in no transaction, and waits
// until all are gone or ctx ends; then it closes what is left and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error { return nil }

// Close closes everything at once.
func (s *Server) Close() error { return nil }
