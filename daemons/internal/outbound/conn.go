package outbound

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/smtpreply"
)

// maxText bounds what is passed on of a server's words, in bytes.
const maxText = 500

// conn is one connection after EHLO.
type conn struct {
	net.Conn
	key    string // destination
	host   string // name of the exchanger
	r      *bufio.Reader
	secure bool
	reused bool
	uses   int
	born   time.Duration // on Clock.Boot
	used   time.Duration
	owed   int // replies that nobody waited for yet (RSET)
	closed func()

	extended                                   bool
	pipelining, eightBit, utf8, dsn, size, tls bool
	maxSize                                    int64  // 0: not told
	auth                                       string // mechanisms, with spaces around
}

// errPlain: the handshake failed where TLS is opportunistic: the same server is tried without.
var errPlain = errors.New("TLS failed")

// connect opens a connection to one address, with TLS as the settings demand.
func (c *Client) connect(ctx context.Context, key, name, address string) (*conn, error) {
	x, err := c.dial(ctx, key, name, address, c.s.TLS != "off")
	if errors.Is(err, errPlain) && ctx.Err() == nil {
		c.o.Log.Info("TLS failed, going on without", "event", "outbound_tls_failed", "host", name, "address", address, "error", err)
		x, err = c.dial(ctx, key, name, address, false)
	}
	switch {
	case err != nil:
		c.m.connections.WithLabelValues("failed").Inc()
	case x.secure:
		c.m.connections.WithLabelValues("tls").Inc()
	default:
		c.m.connections.WithLabelValues("plain").Inc()
	}
	return x, err
}

func (c *Client) dial(ctx context.Context, key, name, address string, encrypt bool) (*conn, error) {
	dctx, cancel := context.WithTimeout(ctx, c.s.ConnectTimeout)
	raw, err := c.o.Dial(dctx, "tcp", address)
	cancel()
	if err != nil {
		return nil, own(451, "4.4.1", "%s [%s] cannot be connected to: %v", name, address, err)
	}
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	x := &conn{Conn: raw, key: key, host: name, r: bufio.NewReaderSize(raw, smtpreply.MaxLine), born: c.o.Clock.Boot()}
	err = c.greet(ctx, x, encrypt)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		raw.Close()
		var e *Error
		if errors.As(err, &e) || errors.Is(err, errPlain) {
			return nil, err
		}
		return nil, own(451, "4.4.2", "%s [%s]: the connection failed: %v", name, address, err)
	}
	c.m.open.Inc()
	x.closed = sync.OnceFunc(c.m.open.Dec)
	return x, nil
}

// greet goes through the opening of a session. An *Error is the server's answer or a demand of ours that it
// does not meet.
func (c *Client) greet(ctx context.Context, x *conn, encrypt bool) error {
	strict := c.s.TLS == "require" || c.s.TLS == "verify" || c.s.User != ""
	x.deadline(ctx, c.s.CommandTimeout)
	if c.s.ImplicitTLS {
		if err := c.handshake(ctx, x); err != nil {
			return own(451, "4.7.5", "TLS with %s failed: %v", x.host, err)
		}
	}
	if err := x.expect(220); err != nil {
		return err
	}
	if err := c.hello(ctx, x); err != nil {
		return err
	}
	if !x.secure && encrypt && x.tls {
		x.deadline(ctx, c.s.CommandTimeout)
		code, lines, err := x.command("STARTTLS")
		if err != nil {
			return err
		}
		if code == 220 {
			if x.r.Buffered() > 0 {
				return own(451, "4.7.5", "%s talks before the TLS handshake", x.host)
			}
			if err := c.handshake(ctx, x); err != nil {
				if strict || ctx.Err() != nil {
					return own(451, "4.7.5", "TLS with %s failed: %v", x.host, err)
				}
				return fmt.Errorf("%w: %w", errPlain, err)
			}
			if err := c.hello(ctx, x); err != nil {
				return err
			}
		} else if strict {
			return own(451, "4.7.5", "%s refuses TLS: %s", x.host, refusal(code, lines).Text)
		}
	}
	if strict && !x.secure {
		return own(451, "4.7.5", "%s offers no TLS, which is demanded", x.host)
	}
	if c.s.User != "" {
		return c.login(ctx, x)
	}
	return nil
}

func (c *Client) handshake(ctx context.Context, x *conn) error {
	config := &tls.Config{}
	if c.o.TLS != nil {
		config = c.o.TLS.Clone()
	}
	config.ServerName = x.host
	if c.s.TLS != "verify" {
		// RFC 7435: encryption that nobody is demanded to prove is better than none.
		config.InsecureSkipVerify = true
		config.MinVersion = tls.VersionTLS10
	}
	secure := tls.Client(x.Conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return err
	}
	x.Conn, x.secure = secure, true
	x.r.Reset(secure)
	return nil
}

// hello says EHLO, and HELO where that is not known.
func (c *Client) hello(ctx context.Context, x *conn) error {
	x.deadline(ctx, c.s.CommandTimeout)
	code, lines, err := x.command("EHLO " + c.o.Hostname)
	if err != nil {
		return err
	}
	x.extended = code == 250
	if code/100 == 5 {
		x.deadline(ctx, c.s.CommandTimeout)
		if code, lines, err = x.command("HELO " + c.o.Hostname); err != nil {
			return err
		}
	}
	if code != 250 {
		return refusal(code, lines)
	}
	x.pipelining, x.eightBit, x.utf8, x.dsn, x.size, x.tls, x.maxSize, x.auth = false, false, false, false, false, false, 0, ""
	if !x.extended {
		return nil
	}
	for _, l := range lines[1:] {
		word, rest, _ := strings.Cut(l, " ")
		switch strings.ToUpper(word) {
		case "PIPELINING":
			x.pipelining = true
		case "8BITMIME":
			x.eightBit = true
		case "SMTPUTF8":
			x.utf8 = true
		case "DSN":
			x.dsn = true
		case "STARTTLS":
			x.tls = true
		case "AUTH":
			x.auth = " " + strings.ToUpper(rest) + " "
		case "SIZE":
			x.size = true
			if n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64); err == nil && n > 0 {
				x.maxSize = n
			}
		}
	}
	return nil
}

// login is AUTH PLAIN (RFC 4616) or LOGIN. Every failure is ours, and temporary.
func (c *Client) login(ctx context.Context, x *conn) error {
	secret, err := conf.ReadSecret(c.s.PasswordFile)
	if err != nil {
		return own(451, "4.7.0", "The password for the smart host cannot be read: %v", err)
	}
	b64 := base64.StdEncoding.EncodeToString
	var steps []string
	switch {
	case strings.Contains(x.auth, " PLAIN "):
		steps = []string{"AUTH PLAIN " + b64([]byte("\x00"+c.s.User+"\x00"+string(secret)))}
	case strings.Contains(x.auth, " LOGIN "):
		steps = []string{"AUTH LOGIN", b64([]byte(c.s.User)), b64(secret)}
	default:
		return own(451, "4.7.0", "The smart host offers neither AUTH PLAIN nor LOGIN")
	}
	for i, s := range steps {
		x.deadline(ctx, c.s.CommandTimeout)
		code, lines, err := x.command(s)
		if err != nil {
			return err
		}
		last := i == len(steps)-1
		if last && code/100 != 2 || !last && code != 334 {
			c.o.Log.Error("the smart host refuses the login: check user and password_file in outbound", "event", "outbound_login_failed",
				"host", x.host, "user", c.s.User, "code", code)
			return own(451, "4.7.0", "The smart host refuses the login: %s", refusal(code, lines).Text)
		}
	}
	return nil
}

// deadline bounds the next step. It looks at the context last, so that its end is never covered up.
func (x *conn) deadline(ctx context.Context, d time.Duration) {
	x.SetDeadline(time.Now().Add(d))
	if ctx.Err() != nil {
		x.SetDeadline(time.Unix(1, 0))
	}
}

func (x *conn) command(line string) (int, []string, error) {
	if _, err := x.Write([]byte(line + "\r\n")); err != nil {
		return 0, nil, err
	}
	return x.reply()
}

// expect reads a reply; another code is an *Error.
func (x *conn) expect(want int) error {
	code, lines, err := x.reply()
	if err == nil && code != want {
		err = refusal(code, lines)
	}
	return err
}

// settle reads the replies that are owed from before.
func (x *conn) settle() error {
	for ; x.owed > 0; x.owed-- {
		if err := x.expect(250); err != nil {
			return err
		}
	}
	return nil
}

func (x *conn) reply() (code int, lines []string, err error) { return smtpreply.Read(x.r) }

// refusal makes an Error of a reply. A 2yz or 3yz where another was due is trouble that may pass.
func refusal(code int, lines []string) *Error {
	e := &Error{Code: code}
	var texts []string
	for _, l := range lines {
		word, rest, _ := strings.Cut(l, " ")
		if isStatus(word) && word[0]-'0' == byte(code/100) {
			e.Status, l = word, rest
		}
		texts = append(texts, l)
	}
	e.Text = clean(strings.Join(texts, " "))
	if code/100 != 4 && code/100 != 5 {
		e.Code, e.Status, e.Text = 451, "4.5.0", fmt.Sprintf("unexpected answer %d %s", code, e.Text)
	}
	if e.Status == "" {
		e.Status = strconv.Itoa(e.Code/100) + ".0.0"
	}
	return e
}

// isStatus: RFC 3463 §2.
func isStatus(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || len(parts[0]) != 1 {
		return false
	}
	for _, p := range parts {
		if len(p) == 0 || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

// clean makes a server's words fit for a reply, a report and a log of ours.
func clean(s string) string { return smtpreply.Clean(s, maxText) }

// close ends the connection; QUIT is said, and its answer not waited for.
func (x *conn) close() {
	x.SetDeadline(time.Now().Add(time.Second))
	_, _ = x.Write([]byte("QUIT\r\n"))
	x.drop()
}

// drop ends a connection that failed.
func (x *conn) drop() {
	x.Conn.Close()
	x.closed()
}
