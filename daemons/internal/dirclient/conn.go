package dirclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// maxAnswer bounds what one call may read from a directory server, in bytes.
const maxAnswer = 64 << 20

var errAnswerTooLarge = errors.New("the directory server's answer is too large")

// endpoint is one directory server by its URI. Its health is shared by the pools (health.go).
type endpoint struct {
	uri  string
	addr string // host:port
	host string
	tls  bool // ldaps; otherwise StartTLS

	health
}

// parseURI accepts ldap://host[:port] and ldaps://host[:port].
func parseURI(s string) (*endpoint, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("directory URI %q: %w", s, err)
	}
	ep := &endpoint{uri: u.Scheme + "://" + u.Host, host: u.Hostname()}
	port := u.Port()
	switch u.Scheme {
	case "ldaps":
		ep.tls = true
		if port == "" {
			port = "636"
		}
	case "ldap":
		if port == "" {
			port = "389"
		}
	default:
		return nil, fmt.Errorf("directory URI %q: write ldaps://host:port or ldap://host:port", s)
	}
	if ep.host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("directory URI %q: write only scheme, host and port, such as ldaps://vault1:636", s)
	}
	ep.addr = net.JoinHostPort(ep.host, port)
	return ep, nil
}

// parseReferral takes the server from an LDAP URL (RFC 4516). What follows the host is not used: the requests
// that are sent on name their entry themselves.
func parseReferral(s string) (*endpoint, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("referral %q: %w", s, err)
	}
	return parseURI(u.Scheme + "://" + u.Host)
}

// boundedConn gives each call a budget of bytes to read, so that a wild server cannot fill memory.
type boundedConn struct {
	net.Conn
	budget atomic.Int64
}

func (b *boundedConn) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if b.budget.Add(int64(-n)) < 0 && err == nil {
		err = errAnswerTooLarge
	}
	return n, err
}

// conn is one connection to one directory server. One call uses it at a time, so that a time-out ends with
// closing it and nobody else is hurt: go-ldap keeps no order to wait for after a lost answer.
type conn struct {
	l      *ldap.Conn
	raw    *boundedConn
	ep     *endpoint
	reused bool // came from the idle list: its failure says little about the server
}

// dial connects to ep and makes sure of TLS. The context bounds all of it.
func dial(ctx context.Context, ep *endpoint, base *tls.Config) (*conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", ep.addr)
	if err != nil {
		return nil, err
	}
	bc := &boundedConn{Conn: raw}
	bc.budget.Store(maxAnswer)
	cfg := base.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName = ep.host
	}
	if ep.tls {
		tc := tls.Client(bc, cfg)
		if err := tc.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, fmt.Errorf("TLS: %w", err)
		}
		c := &conn{l: ldap.NewConn(tc, true), raw: bc, ep: ep}
		c.l.Start()
		return c, nil
	}
	c := &conn{l: ldap.NewConn(bc, false), raw: bc, ep: ep}
	c.l.Start()
	if err := c.do(ctx, func(l *ldap.Conn) error { return l.StartTLS(cfg) }); err != nil {
		c.close()
		return nil, fmt.Errorf("StartTLS: %w", err)
	}
	return c, nil
}

// do runs one exchange on c, bounded by ctx, which must have a deadline. After an error for which broken says
// true the connection must be closed.
func (c *conn) do(ctx context.Context, f func(*ldap.Conn) error) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		panic("dirclient: exchange without a deadline")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	c.raw.budget.Store(maxAnswer)
	if err := c.raw.SetDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.raw.SetDeadline(time.Unix(1, 0)) })
	err := f(c.l)
	if !stop() {
		// The deadline of the past is set or will be: nobody can use this connection any more.
		if err == nil {
			c.close()
			return nil
		}
		return fmt.Errorf("%w (%v)", context.Cause(ctx), err)
	}
	if derr := c.raw.SetDeadline(time.Time{}); err == nil && derr != nil {
		c.close()
	}
	return err
}

// dead says whether the connection is known to be of no more use.
func (c *conn) dead() bool { return c.l.IsClosing() }

// close ends the connection. It never blocks for long: a peer that reads nothing is cut off.
func (c *conn) close() {
	_ = c.raw.SetDeadline(time.Now().Add(100 * time.Millisecond))
	_ = c.l.Close()
	_ = c.raw.Close()
}
