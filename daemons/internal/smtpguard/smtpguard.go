// Package smtpguard is the shell around the go-smtp server: it owns the bytes of each connection, before
// and inside TLS, and go-smtp sees only what has passed it. Everything that decides where a command or a
// message begins and ends is decided here.
//
// # Why
//
// What two servers read differently, an attacker turns into a second message (SMTP smuggling). go-smtp
// answers a read time-out inside DATA with 554 and then executes the rest of the message as commands,
// lets bare CR and LF pass, does not see the end of data in CR CR LF . CR LF, takes a truncated BDAT chunk
// for a whole one, may answer for a message with the outcome of an abandoned one, accepts control characters and
// nested MAIL, refuses <postmaster>, and has no limit on connections. So it is fed one checked line at a time and
// never reads a message itself.
//
// # Framing
//
//	command  = verb [SP arguments] CRLF     at most MaxCommandLine octets; no control characters; UTF-8
//	auth     = base64 CRLF                  after a 334 reply; at most MaxAuthLine octets (RFC 4954 §4)
//	data     = *( [.] text CRLF ) . CRLF    after a 354 reply; a CR or LF that stands alone is never a line end
//	bdat     = size octets                  after BDAT (RFC 3030 §2); any octets. The only framing of BODY=BINARYMIME
//
// # Invariants
//
//   - One command is handed over, its reply is read back, then the next: the guard knows by the reply
//     itself (354, 334, 250) what the next octets are, never by a guess.
//   - After a CR or LF that stands alone, a malformed BDAT or input that came before the reply it had to
//     wait for, the connection is answered and closed: what follows is not interpreted.
//   - A connection whose time is over is closed. Nothing is read from it afterwards.
//   - Replies are kept back while complete commands wait (RFC 2920 §3.2), and written before every wait.
//   - Memory per connection is bounded by the buffers below, whatever the client sends.
//
// Every reply of go-smtp goes through reply.go, which puts the server's own name and extensions into the
// answer to EHLO (STARTTLS is the guard's: go-smtp does not know that the connection can be encrypted).
//
// Left out on purpose: policy about mail (the session's), PROXY protocol (the listener's), XCLIENT.
package smtpguard

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"shoal/daemons/internal/mailaddr"
)

// Bounds of lines in octets, CRLF included. RFC 5321 §4.5.3.1.4 asks for 512 and each extension for
// more: 4096 holds all of them together.
const (
	MaxCommandLine = 4096
	MaxAuthLine    = 12288 + 2
)

// Backend makes the session of a connection, at its first HELO, EHLO or LHLO.
type Backend interface {
	NewSession(c *Conn) (smtp.Session, error)
}

// Options of New. Hostname and Backend are required; other zero values mean the default or no limit,
// as said.
type Options struct {
	Hostname string // in the greeting and the answer to EHLO
	LMTP     bool
	Backend  Backend

	TLS         *tls.Config // offers STARTTLS; nil: no TLS
	ImplicitTLS bool        // TLS from the first octet (RFC 8314 §3); needs TLS
	RequireTLS  bool        // MAIL and AUTH are answered 530 without TLS
	Auth        bool        // AUTH is offered inside TLS, by sessions that are smtp.AuthSession
	DSN         bool        // DSN is announced (its parameters are understood in any case)
	Binary      bool        // BINARYMIME is offered (RFC 3030 §3): the session takes NUL and lines of any kind and length

	MaxMessageBytes          int64 // announced as SIZE; required, at most 4 GiB (which counts as one octet less)
	MaxTextLine              int   // octets of one line of DATA; 0: DefaultMaxTextLine
	MaxRecipients            int   // in one transaction; 0: DefaultMaxRecipients
	MaxConnections           int   // at once; 0: DefaultMaxConnections
	MaxConnectionsPerAddress int   // at once, an IPv6 /64 counting as one address; 0: no limit

	ReadTimeout        time.Duration // each read; 0: DefaultReadTimeout
	WriteTimeout       time.Duration // each write; 0: DefaultWriteTimeout
	HandshakeTimeout   time.Duration // TLS; 0: DefaultHandshakeTimeout
	TransactionTimeout time.Duration // from MAIL to the end of the message; 0: DefaultTransactionTimeout
	GreetDelay         time.Duration // who talks before the greeting that comes this late is refused; 0: off

	MaxErrors  int           // refused commands until 421, reset by an accepted message; 0: DefaultMaxErrors
	ErrorDelay time.Duration // before each answer after the first half of MaxErrors; 0: none

	Listener string // names the listener in logs and metrics
	Log      *slog.Logger
	Metrics  *Metrics // nil: not counted
}

// Defaults of Options.
const (
	DefaultMaxTextLine        = 1 << 20
	DefaultMaxRecipients      = 1000
	DefaultMaxConnections     = 10000
	DefaultReadTimeout        = 5 * time.Minute // RFC 5321 §4.5.3.2.7
	DefaultWriteTimeout       = 1 * time.Minute
	DefaultHandshakeTimeout   = 30 * time.Second
	DefaultTransactionTimeout = 30 * time.Minute
	DefaultMaxErrors          = 20
)

// Guard serves SMTP or LMTP on any number of listeners of one kind.
type Guard struct {
	o      Options
	srv    *smtp.Server
	limits limits

	mu       sync.Mutex
	conns    map[*Conn]struct{}
	draining chan struct{} // closed by Shutdown and Close
	once     sync.Once
}

// New checks the options and builds a Guard.
func New(o Options) (*Guard, error) {
	if o.Hostname == "" || o.Backend == nil {
		return nil, errors.New("smtpguard: Hostname and Backend are required")
	}
	if o.MaxMessageBytes <= 0 || o.MaxMessageBytes > 1<<32 {
		return nil, fmt.Errorf("smtpguard: MaxMessageBytes is %d, it must be between 1 and %d", o.MaxMessageBytes, int64(1<<32))
	}
	o.MaxMessageBytes = min(o.MaxMessageBytes, 1<<32-1)
	if o.ImplicitTLS && o.TLS == nil {
		return nil, errors.New("smtpguard: ImplicitTLS needs TLS")
	}
	orInt(&o.MaxTextLine, DefaultMaxTextLine)
	orInt(&o.MaxRecipients, DefaultMaxRecipients)
	orInt(&o.MaxConnections, DefaultMaxConnections)
	orInt(&o.MaxErrors, DefaultMaxErrors)
	orTime(&o.ReadTimeout, DefaultReadTimeout)
	orTime(&o.WriteTimeout, DefaultWriteTimeout)
	orTime(&o.HandshakeTimeout, DefaultHandshakeTimeout)
	orTime(&o.TransactionTimeout, DefaultTransactionTimeout)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	g := &Guard{o: o, conns: make(map[*Conn]struct{}), draining: make(chan struct{})}
	g.limits.init(o.MaxConnections, o.MaxConnectionsPerAddress)
	g.srv = smtp.NewServer(backend{o.Backend})
	g.srv.Domain = o.Hostname
	g.srv.LMTP = o.LMTP
	g.srv.MaxRecipients = o.MaxRecipients
	g.srv.MaxMessageBytes = o.MaxMessageBytes
	g.srv.MaxLineLength = 0        // the guard's
	g.srv.AllowInsecureAuth = true // the guard's: it answers AUTH outside TLS itself
	g.srv.EnableSMTPUTF8 = true
	g.srv.EnableDSN = true
	g.srv.ErrorLog = libraryLog{o.Log}
	return g, nil
}

func orInt(v *int, def int) {
	if *v == 0 {
		*v = def
	}
}

func orTime(v *time.Duration, def time.Duration) {
	if *v == 0 {
		*v = def
	}
}

// Serve accepts connections until Shutdown or Close, and returns nil then. It closes l.
func (g *Guard) Serve(l net.Listener) error {
	err := g.srv.Serve(&listener{l, g})
	if errors.Is(err, net.ErrClosed) && g.isDraining() {
		return nil
	}
	return err
}

// Shutdown stops accepting, answers 421 to each connection as soon as it is in no transaction, and waits
// until all are gone or ctx ends; then it cuts what is left and returns ctx's error.
func (g *Guard) Shutdown(ctx context.Context) error {
	g.drain()
	err := g.srv.Shutdown(ctx)
	if errors.Is(err, smtp.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		err = nil
	}
	g.abort()
	return err
}

// Close cuts all connections at once. The messages on their way in are refused by not being answered.
func (g *Guard) Close() error {
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	g.drain()
	// Not go-smtp's Close: it would close connections from here that their own goroutines are using.
	if err := g.srv.Shutdown(gone); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, smtp.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	g.abort()
	return nil
}

func (g *Guard) drain() {
	g.once.Do(func() { close(g.draining) })
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.nudge()
	}
}

func (g *Guard) abort() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.raw.Close()
	}
}

func (g *Guard) isDraining() bool {
	select {
	case <-g.draining:
		return true
	default:
		return false
	}
}

// listener puts the guard around each accepted connection. It refuses those beyond twice the limit
// without a goroutine; those between get a 421.
type listener struct {
	net.Listener
	g *Guard
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			if l.g.isDraining() {
				err = net.ErrClosed
			}
			return nil, err
		}
		if !l.g.limits.admit() {
			l.g.o.Metrics.refused.WithLabelValues(l.g.o.Listener, "total").Inc()
			raw.Close()
			continue
		}
		c := newConn(l.g, raw)
		l.g.mu.Lock()
		l.g.conns[c] = struct{}{}
		l.g.mu.Unlock()
		if l.g.isDraining() {
			c.Close() // it came after drain and abort had looked
			return nil, net.ErrClosed
		}
		return c, nil
	}
}

// Address reads an address in the spelling that go-smtp hands to a session: the local part without
// its quotes. The guard has let only well-formed paths through, so the last @ is the one that counts. ""
// is the null sender.
func Address(s string) (mailaddr.Address, error) {
	if s == "" {
		return mailaddr.Address{}, nil
	}
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return mailaddr.New(s, "")
	}
	return mailaddr.New(s[:i], s[i+1:])
}

// libraryLog takes what go-smtp reports: panics of a session and failures to accept.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Printf(format string, v ...any) {
	l.log.Error("smtp server", "error", fmt.Sprintf(format, v...))
}

func (l libraryLog) Println(v ...any) { l.log.Error("smtp server", "error", fmt.Sprint(v...)) }
