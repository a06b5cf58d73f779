package smtpguard

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	allReplies = -1

	lineBuffer = MaxCommandLine // input while commands are read
	bodyBuffer = 32 << 10       // input while a message of DATA is read
	holdBack   = 4 << 10        // replies kept back at most
	lingerTime = time.Second    // how long a refused client is given to read why
	lingerMax  = 16 << 20       // octets thrown away meanwhile: with less, a client that has sent far ahead loses the replies
)

var (
	linePool = sync.Pool{New: func() any { return new([lineBuffer]byte) }}
	bodyPool = sync.Pool{New: func() any { return new([bodyBuffer]byte) }}
)

// mode says what the next octets of the client are.
type mode uint8

const (
	modeCommand mode = iota // a command line
	modeAuth                // a SASL response
	modeData                // the message of DATA: read by body, never by go-smtp
	modeChunks              // the chunks of BDAT: read by chunks, never by go-smtp
)

// Conn is one guarded connection: the net.Conn that go-smtp serves. Its exported methods may be called by
// the session from the goroutine that go-smtp calls it in.
type Conn struct {
	g      *Guard
	raw    net.Conn // what the listener accepted
	stream net.Conn // raw, or TLS over it
	tls    *tls.ConnectionState
	remote net.Addr
	key    netip.Prefix

	in      []byte // in[r:w] was received and not used yet
	r, w    int
	release func() // gives the array of in back to its pool
	out     []byte // replies not sent yet
	part    []byte // the begun line of a reply
	line    []byte // the array behind feed
	feed    []byte // what go-smtp reads next

	mode    mode
	started bool
	dead    bool // nothing is read or written any more
	closing bool // close as soon as what is in out has been sent

	helo      string
	extended  bool
	needHello bool // after STARTTLS: nothing that was said before counts

	tx      transaction
	command verb   // the command whose reply is due
	last    int    // code of the last reply
	swallow bool   // the next reply is to the guard's own command
	quota   int    // replies of go-smtp that the client waits for
	pending string // a command that was read between two chunks

	errors int
	junk   int

	closeOnce sync.Once
	farewell  atomic.Pointer[string] // the reply with which End ends the connection
}

// transaction is what the guard knows about the mail transaction.
type transaction struct {
	open     bool
	utf8     bool
	binary   bool // BODY=BINARYMIME
	rcpts    int  // accepted
	offered  int  // RCPT commands
	end      time.Time
	chunk    int64 // octets of the BDAT chunk at hand that are still to come
	chunkEnd bool  // that chunk is the last
}

func newConn(g *Guard, raw net.Conn) *Conn {
	buf := linePool.Get().(*[lineBuffer]byte)
	return &Conn{g: g, raw: raw, stream: raw, in: buf[:], quota: allReplies, release: func() { linePool.Put(buf) }}
}

// RemoteAddr is the client's address (behind a balancer, the one of the PROXY header).
func (c *Conn) RemoteAddr() net.Addr {
	if c.remote == nil {
		c.remote = c.raw.RemoteAddr()
	}
	return c.remote
}

// LocalAddr is the address that the client connected to.
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// TLS is the state of the encryption, nil without it.
func (c *Conn) TLS() *tls.ConnectionState { return c.tls }

// Hello is what the client called itself in its last HELO, EHLO or LHLO.
func (c *Conn) Hello() string { return c.helo }

// Extended reports whether the client said EHLO or LHLO, not HELO.
func (c *Conn) Extended() bool { return c.extended }

// Binary reports whether the message of the transaction at hand is BODY=BINARYMIME. The session's MailOptions say 8BITMIME then.
func (c *Conn) Binary() bool { return c.tx.binary }

// The deadlines are the guard's own; these do nothing.

// SetDeadline does nothing.
func (c *Conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// start runs in the connection's own goroutine before the greeting is written: only here may the
// client's address be asked for, because a PROXY header has to be waited for.
func (c *Conn) start() {
	o := &c.g.o
	key, reason := c.g.limits.enter(c.RemoteAddr())
	c.key = key
	if reason == "" && o.ImplicitTLS && !c.handshake() {
		c.kill()
		return
	}
	switch {
	case reason == "address":
		c.refuse(reason, "421 4.7.0 Too many connections from your address, try again later")
	case reason != "":
		c.refuse(reason, "421 4.3.2 Too many connections, try again later")
	case c.g.isDraining():
		c.refuse("draining", "421 4.3.2 Shutting down, try again")
	case c.talksEarly():
		c.refuse("early_talker", "554 5.5.0 You must wait for the greeting")
	}
}

func (c *Conn) refuse(reason, reply string) {
	c.g.o.Metrics.refused.WithLabelValues(c.g.o.Listener, reason).Inc()
	c.g.o.Log.Info("connection refused", "event", "refused", "listener", c.g.o.Listener, "reason", reason, "client", c.RemoteAddr().String())
	if c.g.o.ImplicitTLS && c.tls == nil {
		c.kill()
		return
	}
	c.reply(reply)
	c.hangUp()
}

// talksEarly waits for GreetDelay and reports whether the client spoke meanwhile.
func (c *Conn) talksEarly() bool {
	if c.g.o.GreetDelay <= 0 {
		return false
	}
	c.raw.SetReadDeadline(time.Now().Add(c.g.o.GreetDelay))
	n, err := c.stream.Read(c.in)
	c.w = n
	if err != nil && !isTimeout(err) {
		c.kill()
	}
	return n > 0
}

func (c *Conn) handshake() bool {
	o := &c.g.o
	t := tls.Server(c.raw, o.TLS)
	c.raw.SetDeadline(time.Now().Add(o.HandshakeTimeout))
	if err := t.Handshake(); err != nil {
		o.Metrics.handshakes.WithLabelValues(o.Listener, "failed").Inc()
		o.Log.Info("TLS handshake failed", "event", "tls_failed", "listener", o.Listener, "client", c.RemoteAddr().String(), "error", err)
		return false
	}
	c.raw.SetDeadline(time.Time{})
	o.Metrics.handshakes.WithLabelValues(o.Listener, "ok").Inc()
	state := t.ConnectionState()
	c.stream, c.tls = t, &state
	return true
}

// Read gives go-smtp what it may see: checked command lines and SASL responses.
func (c *Conn) Read(p []byte) (int, error) {
	for len(c.feed) == 0 {
		if c.dead {
			return 0, net.ErrClosed
		}
		if c.mode == modeData || c.mode == modeChunks {
			// Only the session reads a message. One that broke off ends the connection.
			c.kill()
			return 0, net.ErrClosed
		}
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.feed)
	c.feed = c.feed[n:]
	return n, nil
}

// fill reads more into in. Errors: io.EOF; everything else means that the connection was closed.
func (c *Conn) fill() error {
	if c.r > 0 {
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
	n, err := c.receive(c.in[c.w:])
	c.w += n
	return err
}

// receive sends the replies that are due and reads once, within the time that the client has.
func (c *Conn) receive(p []byte) (int, error) {
	if err := c.flush(); err != nil {
		return 0, err
	}
	idle := !c.tx.open
	for {
		deadline := time.Now().Add(c.g.o.ReadTimeout)
		if c.tx.open && c.tx.end.Before(deadline) {
			deadline = c.tx.end
		}
		c.raw.SetReadDeadline(deadline)
		if idle && c.g.isDraining() {
			return 0, errDraining
		}
		if idle && c.farewell.Load() != nil {
			return 0, errEnded
		}
		n, err := c.stream.Read(p)
		if n > 0 {
			return n, nil
		}
		switch {
		case err == nil:
		case isTimeout(err) && time.Now().Before(deadline):
			// Shutdown woke us; with a message on its way we go on.
		case isTimeout(err):
			c.g.o.Metrics.timeouts.WithLabelValues(c.g.o.Listener).Inc()
			c.reply("421 4.4.2 You are too slow, closing the connection")
			c.flush()
			c.kill()
			return 0, net.ErrClosed
		default:
			c.dead = true
			return 0, io.EOF
		}
	}
}

var (
	errDraining = errors.New("shutting down")
	errEnded    = errors.New("ended by End")
)

// End ends the connection with a reply of 421 as soon as it is in no transaction. Any goroutine may call it, and it does not wait.
func (c *Conn) End(reply string) {
	c.farewell.Store(&reply)
	c.nudge()
}

// nudge wakes a connection that waits for its client. Any goroutine may call it.
func (c *Conn) nudge() { c.raw.SetReadDeadline(time.Unix(1, 0)) }

// Write takes go-smtp's replies.
func (c *Conn) Write(p []byte) (int, error) {
	if !c.started {
		c.started = true
		c.start()
	}
	if c.dead {
		return 0, net.ErrClosed
	}
	c.takeReply(p)
	if len(c.out) >= holdBack {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// flush sends what is in out.
func (c *Conn) flush() error {
	if len(c.out) == 0 || c.dead {
		return nil
	}
	c.raw.SetWriteDeadline(time.Now().Add(c.g.o.WriteTimeout))
	_, err := c.stream.Write(c.out)
	c.out = c.out[:0]
	if err != nil {
		c.kill()
		return net.ErrClosed
	}
	return nil
}

// hangUp sends what is due, gives the client a moment to read it, and closes. Without that moment, input
// that was not read makes the kernel reset the connection, and the reply is lost with it.
func (c *Conn) hangUp() {
	if c.dead {
		return
	}
	c.flush()
	if w := halfCloser(c.raw); w != nil && !c.dead {
		c.raw.SetDeadline(time.Now().Add(lingerTime))
		if t, ok := c.stream.(*tls.Conn); ok {
			t.CloseWrite()
		}
		w.CloseWrite()
		for left := lingerMax; left > 0; {
			n, err := c.raw.Read(c.in)
			if left -= n; err != nil {
				break
			}
		}
	}
	c.kill()
}

type closeWriter interface{ CloseWrite() error }

// halfCloser finds the TCP connection in what the listener accepted.
func halfCloser(raw net.Conn) closeWriter {
	switch r := raw.(type) {
	case closeWriter:
		return r
	case interface{ TCPConn() (*net.TCPConn, bool) }: // go-proxyproto's
		if t, ok := r.TCPConn(); ok {
			return t
		}
	}
	return nil
}

// kill closes the connection at once. What is in out is lost.
func (c *Conn) kill() {
	c.dead = true
	c.raw.Close()
}

// Close ends the connection after the last reply (QUIT, or go-smtp giving up).
func (c *Conn) Close() error {
	c.closeOnce.Do(func() {
		c.flush()
		if t, ok := c.stream.(*tls.Conn); ok && !c.dead {
			t.Close()
		}
		c.kill()
		c.g.limits.leave(c.key)
		c.g.mu.Lock()
		delete(c.g.conns, c)
		c.g.mu.Unlock()
		c.release()
		c.in, c.r, c.w = nil, 0, 0
	})
	return nil
}

// violation counts and logs a breach of the protocol.
func (c *Conn) violation(kind string) {
	c.g.o.Metrics.violations.WithLabelValues(c.g.o.Listener, kind).Inc()
	c.g.o.Log.LogAttrs(context.Background(), slog.LevelInfo, "protocol violation", slog.String("event", "violation"),
		slog.String("listener", c.g.o.Listener), slog.String("kind", kind), slog.String("client", c.RemoteAddr().String()))
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func class(code int) string { return strconv.Itoa(code / 100) }
