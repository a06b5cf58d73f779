// Package smtpsession takes mail in over SMTP (RFC 5321): from other servers, and from users who have logged in
// (RFC 6409). A message is passed on to the box while it comes in, and its 250 is the box's; what cannot be
// delivered at once goes into the queue, and its 250 comes when it is on stable storage there.
//
// # What happens to a message
//
//	MAIL   a trace id is made for the transaction; a user's sender address must be the user's own
//	RCPT   the directory says who takes it; a local recipient is offered to the box at once, so that what
//	       the box refuses is refused here, in the session, and not bounced later
//	DATA   the header is read (at most max_header), loops are stopped, Received is put in front, and for a
//	       user a missing Date and Message-ID; then everything streams to the box
//	.      250 only when for every accepted recipient the box has answered 250 or the queue has the message
//
// # What is queued
//
// Mail of users for other systems; mail for aliases and forwards; mail for recipients who cannot be offered to a box, because
// none can be reached; mail whose sender wants to be told of its success. If there is such a recipient in a transaction, the
// message is queued for all of them, and who works the queue tries the boxes at once. A user's mail is queued also where the
// box says "later"; another server's is not then: it has a queue of its own, and the reply is the box's.
//
// # The reply to a message for several recipients
//
// SMTP has one reply for all. If nobody has the message, the box's answer is the reply, unless it is queued for the reasons
// above. If the box's answer for somebody is lost, the reply is 451: he may have it. If some have it, it is queued for the others, also for those who were refused: they get their bounce from there.
// That needs the message again: its first 512 KiB are kept until the reply, while all that is kept is not more than 256 MiB. For a larger one, and without a queue, everything
// mixed is 451: the sender tries again for all of them, and who had it already gets it once more. Never is somebody's copy lost.
//
// # Received (RFC 5321 §4.4, RFC 3848, RFC 6531 §4.3)
//
//	Received: from <hello> ([<address>]) (using <TLS version> with cipher <suite>)
//	        by <hostname> with <protocol> id <trace>
//	        for <recipient>; <date>                            ; for: when there is one recipient
//	protocol = SMTP / ESMTP / ESMTPS / ESMTPA / ESMTPSA / UTF8SMTP / UTF8SMTPS / UTF8SMTPA / UTF8SMTPSA
//
// Loops end by three counts: Received fields in all, Received fields of this very server, and a Delivered-To that
// names a recipient of this transaction. The last is not asked of users, who may send on what they got.
//
// Framing, line and connection limits, time-outs and STARTTLS are smtpguard's. The From field is not compared
// with the user's addresses, the envelope's sender is.
//
// Left out on purpose: routing to other hosts, filters, rate limits. Without a queue DSN is not announced, so that a sending
// server that wants to know of a success says so itself (RFC 3461 §5.2.2).
package smtpsession

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/queue"
	"shoal/daemons/internal/route"
	"shoal/daemons/internal/sasl"
	"shoal/daemons/internal/smtpguard"
)

// Router decides who takes mail for an address (*route.Router does). An error is temporary.
type Router interface {
	Route(ctx context.Context, a mailaddr.Address) (route.Decision, error)
}

// Transport carries messages to the boxes (*deliver.Transport does).
type Transport interface {
	Begin(ctx context.Context, e deliver.Envelope) (*deliver.Transaction, error)
}

// Queue keeps messages until they are delivered (*queue.Queue does). Without an error the message is on stable storage.
type Queue interface {
	Enqueue(ctx context.Context, content io.Reader, due time.Time, envelopes ...queue.Envelope) ([]string, error)
}

// Limits are the attributes of the blocks smtp and submission in a switch's configuration, with their defaults.
type Limits struct {
	// MaxMessage is the largest message, announced as SIZE. The boxes must take a little more: a field
	// is put in front. MaxHeader bounds its header section, MaxLine one of its lines.
	MaxMessage conf.Size `hcl:"max_message,optional" default:"50 MiB" min:"1 KiB" max:"4 GiB"`
	MaxHeader  conf.Size `hcl:"max_header,optional" default:"256 KiB" min:"4 KiB" max:"16 MiB"`
	MaxLine    conf.Size `hcl:"max_line,optional" default:"1 MiB" min:"1000 B" max:"1 GiB"`
	// MaxRecipients bounds one transaction; the client sends the rest in another one.
	MaxRecipients int `hcl:"max_recipients,optional" default:"1000" min:"100" max:"100000"`
	// MaxPerAddress bounds the connections from one address (from one /64 of IPv6), 0: no such limit.
	MaxPerAddress int `hcl:"max_per_address,optional" default:"100" min:"0" max:"1000000"`
	// MaxHops is how many Received fields a message may have, MaxOwnHops how many of this very server.
	MaxHops    int `hcl:"max_hops,optional" default:"100" min:"1" max:"1000"`
	MaxOwnHops int `hcl:"max_own_hops,optional" default:"10" min:"1" max:"1000"`
	// MaxErrors is how many commands may be refused before the connection is closed; ErrorDelay is waited
	// before each further answer from the half of them on.
	MaxErrors  int           `hcl:"max_errors,optional" default:"20" min:"1" max:"10000"`
	ErrorDelay time.Duration `hcl:"error_delay,optional" default:"1s" max:"1m"`
	// GreetDelay holds the greeting back; who talks before it is refused. 0: off.
	GreetDelay time.Duration `hcl:"greet_delay,optional" default:"0s" max:"1m"`
	// ReadTimeout ends a connection that sends nothing, TransactionTimeout one whose message has not come
	// to its end since MAIL.
	ReadTimeout        time.Duration `hcl:"read_timeout,optional" default:"5m" min:"100ms" max:"1h"`
	TransactionTimeout time.Duration `hcl:"transaction_timeout,optional" default:"30m" min:"100ms" max:"24h"`
	// ChannelBinding announces SCRAM bound to the TLS connection to submitters. Without it who asks for it gets it all the same.
	// Mutt with GNU SASL takes it when it is announced, has no binding to give, and does not fall back: it could not send.
	ChannelBinding bool `hcl:"channel_binding,optional" default:"false"`
}

// DefaultLimits are the defaults of Limits.
func DefaultLimits() Limits {
	var l Limits
	conf.SetDefaults(&l)
	return l
}

// maxConnections is the guard's own bound. The listener has one of its own, which is the one to set.
const maxConnections = 1 << 20

// Options of New. Hostname, Listener, Router, Transport, Traces and Limits are required; Auth and TLS
// for Submission.
type Options struct {
	Hostname    string
	Listener    string // name in logs and metrics
	Submission  bool   // for users: TLS and AUTH are demanded before MAIL
	Relay       bool   // for the boxes, over LMTP: see relay.go
	ImplicitTLS bool   // TLS from the first octet (RFC 8314 §3.3)

	Router    Router
	Transport Transport
	Queue     Queue              // nil: nothing is queued
	Auth      sasl.Authenticator // *authn.Authenticator
	Traces    *Traces
	TLS       *tls.Config
	Limits    Limits

	Log     *slog.Logger
	Metrics *Metrics // one for all listeners; nil: not counted
	Clock   clock.Clock

	// Destination groups other domains by where their mail goes; Life is how long a queued message is tried. Both are for Queue.
	Destination func(domain string) string
	Life        time.Duration
}

// Server serves one kind of listener.
type Server struct {
	o     Options
	m     *Metrics
	guard *smtpguard.Guard
	sasl  *sasl.Server // for Submission
	kept  atomic.Int64 // octets of messages that are kept until their reply

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
}

// New builds a server. It refuses options that cannot work.
func New(o Options) (*Server, error) {
	switch {
	case o.Hostname == "" || o.Listener == "" || o.Router == nil || o.Transport == nil || o.Traces == nil:
		return nil, errors.New("smtpsession: Hostname, Listener, Router, Transport and Traces are required")
	case o.Submission && (o.Auth == nil || o.TLS == nil):
		return nil, errors.New("smtpsession: submission needs Auth and TLS")
	case o.Relay && (o.Submission || o.Queue == nil || o.TLS == nil):
		return nil, errors.New("smtpsession: relaying for boxes needs TLS and a queue, and is no submission")
	case o.Queue != nil && (o.Destination == nil || o.Life <= 0):
		return nil, errors.New("smtpsession: a queue needs Destination and Life")
	case o.Limits.MaxMessage <= 0 || o.Limits.MaxHeader <= 0 || o.Limits.MaxHops <= 0 || o.Limits.MaxOwnHops <= 0:
		return nil, errors.New("smtpsession: a limit is missing: begin with DefaultLimits")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	s := &Server{o: o, m: o.Metrics, sasl: sasl.New(o.Auth)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	var err error
	s.guard, err = smtpguard.New(smtpguard.Options{
		Hostname: o.Hostname, Backend: backend{s}, Listener: o.Listener,
		TLS: o.TLS, ImplicitTLS: o.ImplicitTLS, LMTP: o.Relay, RequireTLS: o.Submission || o.Relay, Auth: o.Submission, DSN: o.Queue != nil,
		MaxMessageBytes: int64(o.Limits.MaxMessage), MaxTextLine: int(o.Limits.MaxLine), MaxRecipients: o.Limits.MaxRecipients,
		MaxConnections: maxConnections, MaxConnectionsPerAddress: o.Limits.MaxPerAddress,
		ReadTimeout: o.Limits.ReadTimeout, TransactionTimeout: o.Limits.TransactionTimeout, GreetDelay: o.Limits.GreetDelay,
		MaxErrors: o.Limits.MaxErrors, ErrorDelay: o.Limits.ErrorDelay,
		Log: o.Log, Metrics: o.Metrics.guard,
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

func (b backend) NewSession(c *smtpguard.Conn) (smtp.Session, error) {
	s := &session{s: b.s, c: c}
	s.ctx, s.cancel = context.WithCancel(b.s.ctx)
	return s, nil
}
