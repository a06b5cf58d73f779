// Package lmtpsession takes mail in over LMTP (RFC 2033) and stores it.
//
// # What happens to a message
//
//	RCPT   the address is looked up in the directory and the account opened on its volume: what cannot be
//	       delivered is refused here, with 550 only when the directory said so and with 4yz otherwise
//	DATA   Return-Path is put in front (RFC 5321 §4.4), and Delivered-To when the message goes to one account
//	       only; it is staged once for each volume while it comes in
//	.      it is delivered to each account, and each recipient gets a reply of its own after its commit is stable
//
// # Promises
//
//   - 250 for a recipient means: message and commit are on stable storage in that account's INBOX.
//   - A message that did not come to its end (connection lost, BDAT without LAST, bare CR or LF in DATA) leaves
//     nothing behind.
//   - Recipients of one transaction that are the same account get the message once and the same reply.
//   - When it is not certain whether a commit stands the reply is 451: at least once, never lost.
//   - A message whose ENVID says that it is tried again is not delivered to a mailbox that has it (again.go).
//
// BODY=BINARYMIME is taken (RFC 3030 §3) and stored as it comes, as is everything that BDAT brings: who reads it in a protocol of
// text gets the view of message.Textual.
//
// The framing, the limits on lines, connections and time are smtpguard's. STARTTLS with a client certificate of a
// switch or an operator is demanded before MAIL.
//
// With Options.Filter the scripts of an account decide what becomes of its copy: 250 then means that what they decided is done, and
// 550 that they refuse the message.
//
// Left out on purpose: Received (the switch writes it; two servers of one service are one hop).
package lmtpsession

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/filter"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/smtpguard"
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
	Delivered(ctx context.Context, m *mailstore.Staged, t *mailstore.Target) (mailstore.Result, bool, error)
}

// Domains gives the policies of domains (*dirclient.Client does).
type Domains interface {
	Domain(ctx context.Context, name string) (*dirclient.Domain, error)
}

// Filter runs an account's scripts over a message instead of the plain delivery (*filter.Filter does). filtered is false when there
// are none; an error is temporary.
type Filter interface {
	Deliver(ctx context.Context, d *filter.Delivery) (r filter.Result, filtered bool, err error)
}

// Options of New. Hostname, Store and Accounts are required, and TLS unless Plaintext.
type Options struct {
	Hostname string // what the greeting and LHLO's reply say
	Store    Store
	Accounts Accounts    // recipients
	TLS      *tls.Config // for STARTTLS; it demands a client certificate (pki ServerTLS("switch", "operator"))

	Filter Filter // nil: there are no scripts

	// Domains tell where mail for subaddresses goes; nil: to the INBOX. Separators may stand before a detail.
	Domains    Domains
	Separators string

	// DeferOverQuota answers 452 for an account that is full, where otherwise it is 552.
	DeferOverQuota bool

	// Plaintext lets MAIL in without STARTTLS. For tests.
	Plaintext bool

	// DuplicateWindow is how old a delivery may be that suppresses a second one. 0: DefaultDuplicateWindow;
	// negative: none is suppressed.
	DuplicateWindow time.Duration

	MaxMessageBytes          int64         // 0: DefaultMaxMessageBytes
	MaxRecipients            int           // per transaction; 0: DefaultMaxRecipients
	MaxConnections           int           // 0: DefaultMaxConnections
	MaxConnectionsPerAddress int           // 0: no limit of its own
	ReadTimeout              time.Duration // for each read; 0: DefaultReadTimeout

	Log     *slog.Logger
	Metrics prometheus.Registerer
	Clock   clock.Clock
}

// Defaults of Options. A message may be larger here than at the switches' default limit, since they add
// header fields to it.
const (
	DefaultMaxMessageBytes = 110 << 20
	DefaultMaxRecipients   = 1000
	DefaultMaxConnections  = 10000
	DefaultReadTimeout     = 5 * time.Minute
	DefaultDuplicateWindow = 7 * 24 * time.Hour
)

// maxErrors is how many refusals a switch may collect before its connection is closed: it passes on what its
// clients ask for.
const maxErrors = 1000

// Server serves LMTP on any number of listeners.
type Server struct {
	o     Options
	m     *metrics
	guard *smtpguard.Guard

	ctx    context.Context // ends with Close: what still runs then is given up
	cancel context.CancelFunc
}

// New builds a server. It refuses options that cannot work.
func New(o Options) (*Server, error) {
	if o.Hostname == "" || o.Store == nil || o.Accounts == nil {
		return nil, errors.New("lmtpsession: Hostname, Store and Accounts are required")
	}
	if o.TLS == nil && !o.Plaintext {
		return nil, errors.New("lmtpsession: TLS is required")
	}
	if o.MaxMessageBytes == 0 {
		o.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if o.MaxRecipients == 0 {
		o.MaxRecipients = DefaultMaxRecipients
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	if o.ReadTimeout == 0 {
		o.ReadTimeout = DefaultReadTimeout
	}
	if o.DuplicateWindow == 0 {
		o.DuplicateWindow = DefaultDuplicateWindow
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	s := &Server{o: o, m: newMetrics(o.Metrics)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	var err error
	s.guard, err = smtpguard.New(smtpguard.Options{
		Hostname: o.Hostname, LMTP: true, DSN: true, Binary: true, Backend: backend{s}, Listener: "lmtp",
		TLS: o.TLS, RequireTLS: !o.Plaintext,
		MaxMessageBytes: o.MaxMessageBytes, MaxRecipients: o.MaxRecipients,
		MaxConnections: o.MaxConnections, MaxConnectionsPerAddress: o.MaxConnectionsPerAddress,
		ReadTimeout: o.ReadTimeout, MaxErrors: maxErrors,
		Log: o.Log, Metrics: smtpguard.NewMetrics(o.Metrics),
	})
	if err != nil {
		s.cancel()
		return nil, err
	}
	return s, nil
}

// Serve accepts connections until Shutdown or Close, and returns nil then. It closes l.
func (s *Server) Serve(l net.Listener) error { return s.guard.Serve(l) }

// Shutdown stops accepting, answers 421 to each connection as soon as it is in no transaction, and waits
// until all are gone or ctx ends; then it closes what is left and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.guard.Shutdown(ctx)
	s.cancel()
	return err
}

// Close closes everything at once.
func (s *Server) Close() error {
	s.cancel()
	return s.guard.Close()
}

type backend struct{ s *Server }

func (b backend) NewSession(*smtpguard.Conn) (smtp.Session, error) {
	return &session{s: b.s}, nil
}
