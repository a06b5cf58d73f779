package migrate

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"

	"shoal/daemons/internal/dirclient"
)

// errRefused: the old server knows the user or the password not.
var errRefused = errors.New("the old server refuses name or password")

// old is a connection to an old server.
type old struct {
	*imapclient.Client
	conn *guarded
	stop func() bool
}

// dial connects, verifies the server and reads its greeting. The connection ends with ctx.
func (m *Migrator) dial(ctx context.Context, from *dirclient.Migration) (*old, error) {
	host, _, err := net.SplitHostPort(from.Server)
	if err != nil {
		return nil, fmt.Errorf("old server %q: %w", from.Server, err)
	}
	dctx, cancel := context.WithTimeout(ctx, m.o.Settings.Timeout)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(dctx, "tcp", from.Server)
	if err != nil {
		return nil, fmt.Errorf("old server: %w", err)
	}
	g := &guarded{timeout: m.o.Settings.Timeout}
	g.hide.Store(true)
	g.allow(1 << 20)
	if err := raw.SetDeadline(time.Now().Add(m.o.Settings.Timeout)); err != nil {
		raw.Close()
		return nil, fmt.Errorf("old server: %w", err)
	}
	if from.TLS == dirclient.MigrationStartTLS {
		if err := startTLS(raw); err != nil {
			raw.Close()
			return nil, fmt.Errorf("old server %s: STARTTLS: %w", from.Server, err)
		}
		g.first = []byte("* OK \r\n") // the greeting came before
	}
	secure := tls.Client(raw, m.tls(host))
	if err := secure.HandshakeContext(dctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("old server %s: TLS: %w", from.Server, err)
	}
	g.Conn = secure
	c := &old{Client: imapclient.New(g, nil), conn: g}
	c.stop = context.AfterFunc(ctx, func() { g.Close() })
	if err := c.WaitGreeting(); err != nil {
		c.end()
		return nil, fmt.Errorf("old server %s: %w", from.Server, err)
	}
	return c, nil
}

// end closes the connection.
func (c *old) end() {
	c.stop()
	_ = c.conn.Close() // first: the client waits for it
	_ = c.Close()
}

// startTLS speaks the little IMAP that comes before TLS (RFC 9051 §6.2.1), octet by octet: nothing that a third party put
// behind the answer is taken for the server's.
func startTLS(c net.Conn) error {
	line := func() (string, error) {
		var b []byte
		one := make([]byte, 1)
		for len(b) < 8192 {
			if _, err := io.ReadFull(c, one); err != nil {
				return "", err
			}
			if b = append(b, one[0]); one[0] == '\n' {
				return string(bytes.TrimRight(b, "\r\n")), nil
			}
		}
		return "", errors.New("the line is too long")
	}
	s, err := line()
	if err != nil {
		return err
	}
	if !strings.HasPrefix(s, "* OK") {
		return fmt.Errorf("it says %q", s)
	}
	if _, err := io.WriteString(c, "s STARTTLS\r\n"); err != nil {
		return err
	}
	for range 100 {
		if s, err = line(); err != nil {
			return err
		}
		if answer, ok := strings.CutPrefix(s, "s "); ok {
			if strings.HasPrefix(strings.ToUpper(answer), "OK") {
				return nil
			}
			return fmt.Errorf("it says %q", answer)
		}
	}
	return errors.New("no answer")
}

// login logs in as user, with the master user's password if there is one and pass is empty. errRefused when the server says so.
func (c *old) login(from *dirclient.Migration, user, pass string) error {
	caps := c.Caps()
	var err error
	switch {
	case pass == "" && from.Secret == "":
		return errors.New("the password of the master user is not known here: give it again with shoalctl migration start")
	case pass == "":
		err = c.Authenticate(sasl.NewPlainClient(user, from.User, from.Secret))
	case caps.Has(imap.AuthCap("PLAIN")):
		err = c.Authenticate(sasl.NewPlainClient("", user, pass))
	default:
		err = c.Login(user, pass).Wait()
	}
	var answer *imap.Error
	if errors.As(err, &answer) && answer.Type == imap.StatusResponseTypeNo && !passing(answer.Code) {
		return fmt.Errorf("%w: %s", errRefused, printable(answer.Text))
	}
	if err != nil {
		return fmt.Errorf("log in at the old server: %w", err)
	}
	if _, err := c.Capability().Wait(); err != nil { // those before the login may be fewer
		return fmt.Errorf("old server: %w", err)
	}
	c.conn.hide.Store(false)
	return nil
}

// passing codes of a NO say nothing about the password (RFC 5530).
func passing(code imap.ResponseCode) bool {
	return code == imap.ResponseCodeUnavailable || code == imap.ResponseCodeServerBug || code == imap.ResponseCodeInUse || code == imap.ResponseCodeLimit
}

// oldName is what the old server calls an account.
func oldName(from *dirclient.Migration, address string) string {
	if local, _, ok := strings.Cut(address, "@"); ok && from.Login == dirclient.MigrationLoginLocal {
		return local
	}
	return address
}

// printable is a text of a server without what a terminal or a log would obey.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), 200)]
}

// guarded is a connection to a server that is not trusted with our memory and time: each read has a deadline, and what may come
// before the next call of allow is bounded, because the library keeps what it reads in memory.
type guarded struct {
	net.Conn
	timeout time.Duration
	first   []byte // what is read before anything else
	left    atomic.Int64
	// hide makes IMAP4rev2 unknown to the library, which would send names in UTF-8 without having enabled it.
	hide    atomic.Bool
	matched int
}

const hidden = "IMAP4rev2"

func (g *guarded) allow(n int64) { g.left.Store(n) }

func (g *guarded) Read(p []byte) (int, error) {
	if len(g.first) > 0 {
		n := copy(p, g.first)
		g.first = g.first[n:]
		return n, nil
	}
	if g.left.Load() <= 0 {
		return 0, errors.New("the old server sends more than was asked for")
	}
	if err := g.Conn.SetReadDeadline(time.Now().Add(g.timeout)); err != nil {
		return 0, err
	}
	n, err := g.Conn.Read(p)
	g.left.Add(-int64(n))
	if g.hide.Load() {
		for i := range p[:n] {
			switch p[i] {
			case hidden[g.matched]:
				if g.matched++; g.matched == len(hidden) {
					p[i], g.matched = '9', 0
				}
			case hidden[0]:
				g.matched = 1
			default:
				g.matched = 0
			}
		}
	}
	return n, err
}

func (g *guarded) Write(p []byte) (int, error) {
	if err := g.Conn.SetWriteDeadline(time.Now().Add(g.timeout)); err != nil {
		return 0, err
	}
	return g.Conn.Write(p)
}

// SetReadDeadline, SetWriteDeadline and SetDeadline are the library's ideas of time, which do not bound a message that comes slowly.
func (g *guarded) SetReadDeadline(time.Time) error  { return nil }
func (g *guarded) SetWriteDeadline(time.Time) error { return nil }
func (g *guarded) SetDeadline(time.Time) error      { return nil }
