package deliver

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"shoal/daemons/internal/smtpreply"
)

// maxText bounds what is passed on of a server's words, in bytes.
const maxText = 400

// conn is one connection after LHLO.
type conn struct {
	net.Conn
	address string
	r       *bufio.Reader
	reused  bool
	used    time.Duration // Clock.Boot when it was last given back
	owed    int           // replies that nobody waited for yet (RSET)
	closed  func()

	chunking, utf8, dsn, size, eightBit bool
}

// dial connects, encrypts and says LHLO.
func (t *Transport) dial(ctx context.Context, address string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.s.ConnectTimeout)
	defer cancel()
	raw, err := t.o.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	deadline, _ := ctx.Deadline()
	raw.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	c, err := t.greet(ctx, raw, address)
	if !stop() && err == nil {
		err = fmt.Errorf("connect to %s: %w", address, context.Cause(ctx))
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	c.SetDeadline(time.Time{})
	t.m.open.Inc()
	c.closed = sync.OnceFunc(t.m.open.Dec)
	return c, nil
}

func (t *Transport) greet(ctx context.Context, raw net.Conn, address string) (*conn, error) {
	c := &conn{Conn: raw, address: address, r: bufio.NewReaderSize(raw, smtpreply.MaxLine)}
	if err := c.expect(220); err != nil {
		return nil, fmt.Errorf("greeting of %s: %w", address, err)
	}
	lines, err := c.lhlo(t.o.Name)
	if err != nil {
		return nil, fmt.Errorf("LHLO to %s: %w", address, err)
	}
	if t.o.TLS != nil {
		if !offers(lines, "STARTTLS") {
			return nil, fmt.Errorf("%s does not offer STARTTLS", address)
		}
		if err := c.command("STARTTLS", 220); err != nil {
			return nil, fmt.Errorf("STARTTLS to %s: %w", address, err)
		}
		if c.r.Buffered() > 0 {
			return nil, fmt.Errorf("STARTTLS to %s: it talks before the handshake", address)
		}
		secure := tls.Client(raw, t.tlsFor(address))
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS to %s: %w", address, err)
		}
		c.Conn = secure
		c.r.Reset(secure)
		if lines, err = c.lhlo(t.o.Name); err != nil {
			return nil, fmt.Errorf("LHLO to %s: %w", address, err)
		}
	}
	c.chunking, c.utf8, c.dsn = offers(lines, "CHUNKING"), offers(lines, "SMTPUTF8"), offers(lines, "DSN")
	c.size, c.eightBit = offers(lines, "SIZE"), offers(lines, "8BITMIME")
	return c, nil
}

func (t *Transport) tlsFor(address string) *tls.Config {
	if t.o.TLS.ServerName != "" || t.o.TLS.InsecureSkipVerify {
		return t.o.TLS
	}
	config := t.o.TLS.Clone()
	config.ServerName, _, _ = net.SplitHostPort(address)
	return config
}

func (c *conn) lhlo(name string) ([]string, error) {
	if _, err := c.Write([]byte("LHLO " + name + "\r\n")); err != nil {
		return nil, err
	}
	code, lines, err := c.reply()
	if err == nil && code != 250 {
		err = refusal(code, lines)
	}
	return lines, err
}

func offers(lines []string, keyword string) bool {
	for _, l := range lines[1:] {
		if word, _, _ := strings.Cut(l, " "); strings.EqualFold(word, keyword) {
			return true
		}
	}
	return false
}

func (c *conn) command(line string, code int) error {
	if _, err := c.Write([]byte(line + "\r\n")); err != nil {
		return err
	}
	return c.expect(code)
}

// expect reads a reply; another code is an *Error.
func (c *conn) expect(want int) error {
	code, lines, err := c.reply()
	if err == nil && code != want {
		err = refusal(code, lines)
	}
	return err
}

func (c *conn) noop(deadline time.Time) error {
	c.SetDeadline(deadline)
	defer c.SetDeadline(time.Time{})
	if _, err := c.Write([]byte("NOOP\r\n")); err != nil {
		return err
	}
	if err := c.settle(); err != nil {
		return err
	}
	return c.expect(250)
}

// settle reads the replies that are owed from before.
func (c *conn) settle() error {
	for ; c.owed > 0; c.owed-- {
		if err := c.expect(250); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) reply() (code int, lines []string, err error) { return smtpreply.Read(c.r) }

// refusal makes an Error of a reply: "5.1.1 text" at the begin of a line is the enhanced code (RFC 2034 §4).
func refusal(code int, lines []string) *Error {
	e := &Error{Code: code}
	for i, l := range lines {
		word, rest, _ := strings.Cut(l, " ")
		if enhanced, ok := parseEnhanced(word); ok && enhanced[0] == code/100 {
			e.Enhanced = enhanced
			l = rest
		}
		if i > 0 {
			e.Text += " "
		}
		e.Text += l
	}
	e.Text = clean(e.Text)
	return e
}

func parseEnhanced(s string) (e [3]int, ok bool) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return e, false
	}
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil || n < 0 || n > 999 {
			return e, false
		}
		e[i] = n
	}
	return e, true
}

// clean makes a server's words fit for a reply, a report and a log of ours.
func clean(s string) string { return smtpreply.Clean(s, maxText) }

// close ends the connection without a word: QUIT would have to be waited for.
func (c *conn) close() {
	c.Conn.Close()
	c.closed()
}
