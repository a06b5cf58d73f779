package replica

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"shoal/daemons/internal/ldapwire"
)

// maxMessage bounds one message of a provider, in octets.
const maxMessage = 32 << 20

// wireLimits of what a provider sends: it is trusted more than a client is.
var wireLimits = ldapwire.Limits{Attributes: 4096, Values: 1 << 20}

// endpoint is one provider.
type endpoint struct {
	uri, host, address string
	tls                bool // from the first octet; otherwise StartTLS
	named              bool // by the options
}

func parseURI(s string) (endpoint, error) {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.Scheme != "ldap" && u.Scheme != "ldaps" || strings.Trim(u.Path, "/") != "" {
		return endpoint{}, fmt.Errorf("provider %q: write ldaps://host:port or ldap://host:port", s)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"ldap": "389", "ldaps": "636"}[u.Scheme]
	}
	return endpoint{uri: u.Scheme + "://" + u.Host, host: u.Hostname(), address: net.JoinHostPort(u.Hostname(), port), tls: u.Scheme == "ldaps"}, nil
}

// conn is a connection to a provider, bound.
type conn struct {
	c       net.Conn
	in      *bufio.Reader
	timeout time.Duration
	send    sync.Mutex
}

// connect reaches a provider and binds there.
func (r *Replica) connect(ctx context.Context, e endpoint) (*conn, error) {
	password, err := r.opt.Password()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.opt.Timeout)
	defer cancel()
	c, err := dial(ctx, e, r.opt.TLS, r.opt.Timeout)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, c.close)
	m, err := c.exchange(ldapwire.AppendBindRequest(nil, 2, r.opt.BindDN, password), 2, ldapwire.OpBindResponse)
	if err == nil {
		err = m.Err()
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("bind as %s: %w", r.opt.BindDN, err)
	}
	return c, nil
}

// dial connects, and makes sure of TLS. ctx bounds it.
func dial(ctx context.Context, e endpoint, base *tls.Config, timeout time.Duration) (_ *conn, err error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", e.address)
	if err != nil {
		return nil, err
	}
	c := &conn{c: raw, in: bufio.NewReaderSize(raw, 64<<10), timeout: timeout}
	stop := context.AfterFunc(ctx, c.close)
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			c.close()
		}
	}()
	if !e.tls {
		m, err := c.exchange(ldapwire.AppendExtendedRequest(nil, 1, ldapwire.OIDStartTLS, nil), 1, ldapwire.OpExtendedResponse)
		if err != nil {
			return nil, fmt.Errorf("StartTLS: %w", err)
		}
		if err := m.Err(); err != nil {
			return nil, fmt.Errorf("StartTLS: %w", err)
		}
		if c.in.Buffered() > 0 {
			return nil, fmt.Errorf("StartTLS: octets before TLS")
		}
	}
	cfg := base.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName = e.host
	}
	t := tls.Client(raw, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	c.c = t
	c.in.Reset(t)
	return c, nil
}

// exchange sends a request and reads its answer, while nothing else is under way.
func (c *conn) exchange(request []byte, id int32, op ldapwire.Op) (*ldapwire.Result, error) {
	if err := c.write(request); err != nil {
		return nil, err
	}
	m, err := c.read(c.timeout)
	if err != nil {
		return nil, err
	}
	var res ldapwire.Result
	if m.Op == op || m.Op == ldapwire.OpExtendedResponse {
		err = res.Parse(m.Body)
	}
	if err == nil && m.ID == 0 {
		err = fmt.Errorf("the provider ends the connection: %w", &ldapwire.Error{Code: res.Code, Message: res.Message})
	}
	if err == nil && (m.ID != id || m.Op != op) {
		err = fmt.Errorf("unexpected answer: message %d, operation 0x%02x", m.ID, byte(m.Op))
	}
	return &res, err
}

func (c *conn) write(b []byte) error {
	c.send.Lock()
	defer c.send.Unlock()
	if err := c.c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return err
	}
	_, err := c.c.Write(b)
	return err
}

// read reads one message, in memory of its own.
func (c *conn) read(within time.Duration) (*ldapwire.Message, error) {
	if err := c.c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	size := 0
	for n := 2; size == 0; n++ {
		head, err := c.in.Peek(n)
		if err != nil {
			return nil, err
		}
		if size, err = ldapwire.Frame(head, maxMessage); err != nil {
			return nil, err
		}
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(c.in, b); err != nil {
		return nil, err
	}
	m := &ldapwire.Message{}
	return m, m.Parse(b, wireLimits)
}

// close ends the connection, from any goroutine.
func (c *conn) close() { _ = c.c.Close() } // whoever reads or writes notices
