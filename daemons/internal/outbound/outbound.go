package outbound

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/mailaddr"
)

// Settings are the attributes of the block outbound in a switch's configuration, with their defaults.
type Settings struct {
	// SmartHost takes all mail for other systems: "host:port". Empty: each domain's mail exchangers.
	SmartHost string `hcl:"smart_host,optional" default:""`
	// ImplicitTLS: the smart host speaks TLS from the first octet (port 465).
	ImplicitTLS bool `hcl:"implicit_tls,optional" default:"false"`
	// TLS opportunistic: where it is offered, whatever the certificate; require: encrypted or not at all; verify: and
	// the certificate must be valid for the smart host's name; off: never.
	TLS string `hcl:"tls,optional" default:"opportunistic" oneof:"opportunistic require verify off"`
	// User and PasswordFile log in at the smart host, over TLS only.
	User         string `hcl:"user,optional" default:""`
	PasswordFile string `hcl:"password_file,optional" conf:"secret"`
	// OwnAddresses are further addresses under which this service is reached from outside (of balancers, before
	// a translation): mail is never sent there.
	OwnAddresses []string `hcl:"own_addresses,optional"`
	// ConnectTimeout bounds one connection attempt; CommandTimeout the greeting and each reply; DataTimeout one write of the
	// message; FinalTimeout the reply to it.
	ConnectTimeout time.Duration `hcl:"connect_timeout,optional" default:"30s" min:"10ms" max:"10m"`
	CommandTimeout time.Duration `hcl:"command_timeout,optional" default:"5m" min:"10ms" max:"1h"`
	DataTimeout    time.Duration `hcl:"data_timeout,optional" default:"3m" min:"10ms" max:"1h"`
	FinalTimeout   time.Duration `hcl:"final_timeout,optional" default:"10m" min:"10ms" max:"1h"`
	// MaxIdle bounds the unused connections kept for each destination, IdleTimeout how long; a connection is
	// given up after MaxUses messages or MaxAge.
	MaxIdle     int           `hcl:"max_idle,optional" default:"4" min:"0" max:"1000"`
	IdleTimeout time.Duration `hcl:"idle_timeout,optional" default:"5s" min:"10ms" max:"10m"`
	MaxUses     int           `hcl:"max_uses,optional" default:"100" min:"1" max:"100000"`
	MaxAge      time.Duration `hcl:"max_age,optional" default:"5m" min:"1s" max:"1h"`
}

// DefaultSettings are the defaults of Settings.
func DefaultSettings() Settings {
	var s Settings
	conf.SetDefaults(&s)
	return s
}

// Validate checks what needs several attributes.
func (s *Settings) Validate() error {
	if s.SmartHost != "" {
		if host, port, err := net.SplitHostPort(s.SmartHost); err != nil || host == "" || port == "" {
			return conf.Invalid("smart_host", "%q is not host:port: write for example \"smtp.example.net:587\"", s.SmartHost)
		}
	}
	switch {
	case s.SmartHost == "" && s.User != "":
		return conf.Invalid("user", "is for a smart host: set smart_host")
	case s.SmartHost == "" && s.ImplicitTLS:
		return conf.Invalid("implicit_tls", "is for a smart host: set smart_host")
	case s.SmartHost == "" && s.TLS == "verify":
		return conf.Invalid("tls", "\"verify\" is for a smart host: mail exchangers have certificates that nobody can verify")
	case (s.User == "") != (s.PasswordFile == ""):
		return conf.Invalid("user", "user and password_file belong together")
	case s.User != "" && s.TLS == "off":
		return conf.Invalid("user", "a password is never sent in clear: remove tls = \"off\"")
	case s.ImplicitTLS && s.TLS == "off":
		return conf.Invalid("implicit_tls", "contradicts tls = \"off\"")
	}
	for _, a := range s.OwnAddresses {
		if _, err := netip.ParseAddr(a); err != nil {
			return conf.Invalid("own_addresses", "%q is no IP address", a)
		}
	}
	return nil
}

// Resolver answers from the DNS (*net.Resolver does).
type Resolver interface {
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options of New. Hostname is required.
type Options struct {
	Settings Settings // see DefaultSettings
	Hostname string   // what EHLO says, and a name by which this server knows itself as an exchanger

	OwnNames      []string     // further such names
	Own           []netip.Addr // addresses of this machine; nil: those that it has
	Resolver      Resolver     // nil: net.DefaultResolver
	Dial          func(ctx context.Context, network, address string) (net.Conn, error)
	Port          int         // of mail exchangers; 0: 25
	AllowLoopback bool        // exchangers may be on this machine, for tests
	TLS           *tls.Config // base of what STARTTLS uses; nil: the system's certificates

	Log     *slog.Logger
	Metrics prometheus.Registerer
	Clock   clock.Clock
}

// Message is what is sent. It is not changed.
type Message struct {
	From   mailaddr.Address // the zero Address is the null sender
	EnvID  string           // ENVID and RET (RFC 3461) as they were given; empty: none
	Return string
	UTF8   bool   // SMTPUTF8 was asked for
	Body   string // BODY as it was given; empty: not known
	Size   int64
	Trace  string // for the log
	// Open gives the message from its beginning; it is called again for each server that is tried.
	Open func() io.Reader
}

// Rcpt is one recipient.
type Rcpt struct {
	Address mailaddr.Address
	Notify  string // as they were given (RFC 3461); empty: none
	ORcpt   string
}

// Outcome for one recipient.
type Outcome struct {
	Err  *Error // nil: taken
	Host string // who answered; empty: nobody
	Text string // the answer that took it
	DSN  bool   // taken by a server that was told NOTIFY, and makes the notifications from here on
}

// Result of Send.
type Result struct {
	Outcomes []Outcome // one for each recipient, in their order
	// Away: no server of the destination could be spoken with; Err of all outcomes says why. It is about
	// the destination and not about this message.
	Away bool
}

// Error is why a recipient was not taken: the answer of a server, or our own words (Own).
type Error struct {
	Code   int    // 4yz: may succeed later; 5yz: never
	Status string // enhanced code (RFC 3463), made of Code when the server gave none
	Text   string
	Own    bool
}

func (e *Error) Error() string { return fmt.Sprintf("%d %s %s", e.Code, e.Status, e.Text) }

// Permanent reports whether trying again is of no use.
func (e *Error) Permanent() bool { return e.Code/100 == 5 }

func own(code int, status, format string, args ...any) *Error {
	return &Error{Code: code, Status: status, Text: clean(fmt.Sprintf(format, args...)), Own: true}
}

// Client sends. Its methods may be called from any goroutine.
type Client struct {
	o     Options
	s     Settings
	m     *metrics
	names map[string]bool     // our own, as keys
	addrs map[netip.Addr]bool // our own

	mu     sync.Mutex
	idle   map[string][]*conn // by destination, the latest used last
	reaper clock.Timer        // pending while idle is not empty
	closed bool
}

// New checks the options and builds a Client. It connects to nothing yet.
func New(o Options) (*Client, error) {
	if err := o.Settings.Validate(); err != nil {
		return nil, fmt.Errorf("outbound: %w", err)
	}
	if o.Hostname == "" || o.Settings.CommandTimeout <= 0 {
		return nil, errors.New("outbound: Hostname or settings are missing: begin with DefaultSettings")
	}
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Port == 0 {
		o.Port = 25
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	c := &Client{o: o, s: o.Settings, m: newMetrics(o.Metrics), names: map[string]bool{}, addrs: map[netip.Addr]bool{}, idle: map[string][]*conn{}}
	for _, n := range append([]string{o.Hostname}, o.OwnNames...) {
		c.names[mailaddr.DomainKey(n)] = true
	}
	for _, a := range o.Settings.OwnAddresses {
		if ip, err := netip.ParseAddr(a); err == nil {
			c.addrs[ip.Unmap()] = true
		}
	}
	if o.Own == nil {
		all, err := net.InterfaceAddrs()
		if err != nil {
			return nil, fmt.Errorf("outbound: this machine's addresses: %w", err)
		}
		for _, a := range all {
			if n, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok {
					o.Own = append(o.Own, ip)
				}
			}
		}
	}
	for _, ip := range o.Own {
		if ip = ip.Unmap(); !(o.AllowLoopback && ip.IsLoopback()) {
			c.addrs[ip] = true
		}
	}
	return c, nil
}

// Destination is the key under which mail for a domain shares connections, limits and fate.
func (c *Client) Destination(domain string) string {
	if c.s.SmartHost != "" {
		return "smarthost"
	}
	return mailaddr.DomainKey(domain)
}
