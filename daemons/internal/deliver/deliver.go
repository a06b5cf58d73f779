// Package deliver hands messages over LMTP to the servers that store them (RFC 2033): one transaction
// at a time on a pooled connection, recipients offered one by one, the message streamed while it
// comes in, one outcome for each recipient.
//
// # On the wire
//
//	LHLO, STARTTLS, LHLO          once per connection; the server's certificate must be of an accepted role
//	MAIL FROM:<> ENVID= BODY= SIZE= SMTPUTF8    together with the first RCPT, in one write
//	RCPT TO:<>                    one for each recipient; its answer goes back to the caller as it is
//	BDAT n / BDAT n LAST          where the server has CHUNKING: no dot-stuffing, no round trip for a 354,
//	                              and a message that breaks off cannot be taken for a whole one
//	DATA                          otherwise; CR and LF that stand alone are refused, never sent
//
// # Promises
//
//   - A recipient counts as delivered only when its own 250 was read. Where a reply may have been lost
//     the outcome is Unknown, a temporary failure: the sender keeps the message and tries again.
//   - Until the message has been sent, a connection or server that fails is replaced by the next one, and
//     the recipients are offered to it again, without the caller noticing. A message that is still whole in
//     memory (64 KiB) is sent again too when it is certain that its last octet was never sent. Otherwise
//     nothing is tried again once the message has begun.
//   - Every wait has a bound, and every reply is bounded in size.
//   - Content is never taken for a command: the length is counted (BDAT) or the dots are stuffed (DATA).
//
// A Transport may be used by any number of goroutines, a Transaction by one at a time.
//
// Left out on purpose: queueing and retry in time (the caller's), MX lookup (addresses are given).
package deliver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/mailaddr"
)

// Settings are the attributes of the block lmtp in a switch's configuration, with their defaults.
type Settings struct {
	// Addresses are where to deliver, in the order in which they are tried: "host:port" of a balancer or
	// a box, or "box:name" for a box whose LMTP address the directory knows. A server that does not answer
	// is passed over for RetryDown.
	Addresses []string `hcl:"addresses" example:"127.0.0.1:24"`
	// ConnectTimeout bounds connecting, TLS and LHLO together, CommandTimeout one reply, DataTimeout one
	// write of the message, FinalTimeout the replies after the message.
	ConnectTimeout time.Duration `hcl:"connect_timeout,optional" default:"5s" min:"10ms" max:"5m"`
	CommandTimeout time.Duration `hcl:"command_timeout,optional" default:"1m" min:"10ms" max:"10m"`
	DataTimeout    time.Duration `hcl:"data_timeout,optional" default:"1m" min:"10ms" max:"10m"`
	FinalTimeout   time.Duration `hcl:"final_timeout,optional" default:"5m" min:"10ms" max:"1h"`
	// IdleTimeout is how long an unused connection is kept, RetryDown how long a server that failed is
	// passed over while there is another.
	IdleTimeout time.Duration `hcl:"idle_timeout,optional" default:"1m" min:"1s" max:"1h"`
	RetryDown   time.Duration `hcl:"retry_down,optional" default:"5s" min:"10ms" max:"1h"`
	// MaxIdle bounds the unused connections kept for each address, MaxOpen those in use, all together;
	// a delivery that finds none free waits for one.
	MaxIdle int `hcl:"max_idle,optional" default:"32" min:"0" max:"10000"`
	MaxOpen int `hcl:"max_open,optional" default:"512" min:"1" max:"100000"`
}

// DefaultSettings are the defaults of Settings, without an address.
func DefaultSettings() Settings {
	var s Settings
	conf.SetDefaults(&s)
	return s
}

const boxPrefix = "box:"

// Validate checks the addresses.
func (s *Settings) Validate() error {
	if len(s.Addresses) == 0 {
		return conf.Invalid("addresses", "must name at least one server: write \"host:24\", or \"box:box1\" for a box in the directory")
	}
	for _, a := range s.Addresses {
		if name, ok := strings.CutPrefix(a, boxPrefix); ok && name != "" && !strings.Contains(name, ":") {
			continue
		}
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			return conf.Invalid("addresses", "%q is neither host:port nor box:name", a)
		}
	}
	return nil
}

// Options of New.
type Options struct {
	Settings Settings // see DefaultSettings
	// Box gives the LMTP addresses of a box that Settings names, now. Nil: no box can be named.
	Box func(ctx context.Context, name string) ([]string, error)

	// TLS is what STARTTLS uses, with the client certificate. Nil: no TLS, for tests.
	TLS *tls.Config
	// Name is what LHLO says; "localhost" when empty.
	Name string

	Dial    func(ctx context.Context, network, address string) (net.Conn, error) // nil: net.Dialer
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Clock   clock.Clock
}

// Envelope is what MAIL FROM says.
type Envelope struct {
	From     mailaddr.Address // the zero Address is the null sender
	EnvID    string           // the trace id: travels as DSN ENVID (RFC 3461 §4.4)
	Again    bool             // an attempt before this one had no answer: AgainMark is put behind EnvID
	Size     int64            // announced size, 0: unknown
	EightBit bool             // BODY=8BITMIME
	UTF8     bool             // SMTPUTF8
}

// AgainMark behind a trace id in ENVID says that an attempt at the message before this one had no answer: some of the
// recipients may have it already. A box that knows the mark does not deliver it to them twice; one that does
// not takes it for a part of the id.
const AgainMark = "/again"

// RcptResult is the outcome for one recipient, in the order of the accepted RCPTs.
type RcptResult struct {
	Rcpt mailaddr.Address
	Err  error  // nil: delivered. *Error: the server's answer. Otherwise errors.Is(Err, ErrUnknown)
	Text string // the text of the server's 250

	delivered bool
	original  string // what the sender wrote, where that differs
}

// Error is a refusal in the server's own words: code, enhanced code (zero when it gave none), text.
type Error struct {
	Code     int
	Enhanced [3]int
	Text     string
}

func (e *Error) Error() string { return fmt.Sprintf("%d %s", e.Code, e.Text) }

// Temporary reports whether the same may succeed later (4yz).
func (e *Error) Temporary() bool { return e.Code/100 == 4 }

// Errors, for errors.Is.
var (
	// ErrUnavailable: no server could be reached, or none kept a connection until the message was to be
	// sent. Nothing was delivered; try again later.
	ErrUnavailable = errors.New("no LMTP server is available")
	// ErrUnknown: the message was sent, wholly or in part, and the answer for this recipient did not
	// arrive. It may have been delivered. Never report it as delivered: answer 451.
	ErrUnknown = errors.New("the outcome of the delivery is not known")
	// ErrAborted: the reader of the message failed, so the transaction was given up. Nothing was delivered.
	ErrAborted = errors.New("the message was not read to its end")
	// ErrBusy: MaxOpen connections are in use and the context ended while waiting for one.
	ErrBusy = errors.New("too many deliveries at once")
	// ErrBareLine: the server takes DATA only and the message holds a CR or LF that stands alone.
	ErrBareLine = errors.New("the message holds a bare CR or LF and the server has no CHUNKING")
	// ErrNeedsUTF8: the envelope has non-ASCII addresses and the server has no SMTPUTF8.
	ErrNeedsUTF8 = errors.New("the server does not take internationalized addresses")
	// ErrClosed: the Transport was closed.
	ErrClosed = errors.New("the transport is closed")
)
