package imapsession

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// transport is a session's connection: it reads and writes with deadlines, looks for input without
// waiting, and parks.
//
// There are two ways to park. A socket is watched by the poller. Anything else (an in-memory pipe, a
// connection wrapped by somebody who does not let the socket be seen) gets a goroutine that waits for
// one byte; that byte is kept in peeked and read first.
type transport struct {
	outer net.Conn        // what Accept gave: closing it tells whoever counts connections
	base  net.Conn        // the socket inside, or outer
	conn  net.Conn        // what is read and written: base, or TLS on top of it
	gate  *gate           // between TLS and base; nil without TLS
	raw   syscall.RawConn // of base; nil: not a socket, no poller
	fd    int             // in the poller; -1: not there
	z     *compression    // above conn; nil without COMPRESS

	peeked  chan peek // of the waiting goroutine, when there is one
	waiting bool      // it has not answered yet

	killed atomic.Bool // reads and writes fail from now on
}

type peek struct {
	b   byte
	n   int
	err error
}

// errWouldBlock is returned by a read that was told not to wait. It is a temporary net.Error, which
// leaves a tls.Conn as it was.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "no input" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

// gate is the connection below TLS. In its non-blocking mode a read returns errWouldBlock where it
// would have to wait.
type gate struct {
	net.Conn
	raw  syscall.RawConn
	poll bool // do not wait
}

func (g *gate) Read(p []byte) (int, error) {
	if !g.poll {
		return g.Conn.Read(p)
	}
	return readNow(g.raw, p)
}

// readNow reads what is there.
func readNow(raw syscall.RawConn, p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, failed = unix.Read(int(fd), p)
			if failed != unix.EINTR {
				return true
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case failed == unix.EAGAIN:
		return 0, errWouldBlock
	case failed != nil:
		return 0, os.NewSyscallError("read", failed)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// newTransport looks inside c for the socket. Bytes that a wrapper (the PROXY protocol) had read ahead
// come back as early.
func newTransport(c net.Conn) (t *transport, early []byte, err error) {
	t = &transport{outer: c, base: c, fd: -1}
	c.RemoteAddr() // a PROXY header is read now
	base := c
	for {
		var inner net.Conn
		switch w := base.(type) {
		case *tls.Conn: // not ours: its state is its own
		case interface{ NetConn() net.Conn }:
			inner = w.NetConn()
		case interface{ Raw() net.Conn }: // the PROXY protocol; nothing is lost when it is left out at close
			inner = w.Raw()
			if t.outer == base {
				t.outer = inner
			}
		}
		if inner == nil {
			break
		}
		base = inner
	}
	if sc, ok := base.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			t.base, t.raw = base, raw
		}
	}
	t.conn = t.base
	if tcp, ok := base.(*net.TCPConn); ok {
		// Go's own default, a probe every 15 seconds, is too much for connections that idle for hours.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 5 * time.Minute, Interval: 30 * time.Second, Count: 4})
	}
	if t.raw != nil && base != c {
		// A wrapper that has read ahead gives that up without touching the socket, which has no
		// time left.
		buf := make([]byte, 4096)
		if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
			return nil, nil, err
		}
		n, err := c.Read(buf)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, nil, err
		}
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			return nil, nil, err
		}
		early = buf[:n]
	}
	return t, early, nil
}

// isTLS reports whether the connection is protected.
func (t *transport) isTLS() bool {
	if t.gate != nil {
		return true
	}
	_, ok := t.conn.(*tls.Conn)
	return ok
}

// tlsState tells of the protection; nil: there is none.
func (t *transport) tlsState() *tls.ConnectionState {
	secure, ok := t.conn.(*tls.Conn)
	if !ok {
		return nil
	}
	state := secure.ConnectionState()
	return &state
}

// startTLS makes the server's side of a handshake. early are bytes of the client that were read
// already; they must not be there after STARTTLS.
func (t *transport) startTLS(config *tls.Config, early []byte, timeout time.Duration) error {
	first := &prefixed{Conn: t.base, early: early}
	g := &gate{Conn: first, raw: t.raw}
	secure := tls.Server(g, config)
	deadline := time.Now().Add(timeout)
	if err := t.base.SetDeadline(deadline); err != nil {
		return err
	}
	if err := secure.Handshake(); err != nil {
		return err
	}
	if err := t.base.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if len(first.early) > 0 {
		return errors.New("bytes between the client's hello and its answer")
	}
	g.Conn = t.base
	t.conn, t.gate = secure, g
	return nil
}

// prefixed is a connection with some bytes before its own.
type prefixed struct {
	net.Conn
	early []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.early) > 0 {
		n := copy(b, p.early)
		p.early = p.early[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// rawNow is readNow below compression.
func (t *transport) rawNow(p []byte, timeout time.Duration) (int, error) {
	if t.waiting {
		select {
		case got := <-t.peeked:
			t.waiting = false
			if got.n > 0 {
				p[0] = got.b
				return 1, nil
			}
			return 0, got.err
		default:
			return 0, errWouldBlock
		}
	}
	switch {
	case t.raw == nil:
		return 0, errWouldBlock
	case t.gate == nil:
		return readNow(t.raw, p)
	}
	if err := t.base.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	t.gate.poll = true
	n, err := t.conn.Read(p)
	t.gate.poll = false
	return n, err
}

// rawRead is read below compression.
func (t *transport) rawRead(p []byte, timeout time.Duration) (int, error) {
	if err := t.base.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	if t.killed.Load() {
		return 0, net.ErrClosed
	}
	if t.waiting {
		got := <-t.peeked
		t.waiting = false
		if got.n > 0 {
			p[0] = got.b
			return 1, nil
		}
		return 0, got.err
	}
	return t.conn.Read(p)
}

// rawWrite is write below compression.
func (t *transport) rawWrite(p []byte, timeout time.Duration) (int, error) {
	if err := t.base.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	if t.killed.Load() {
		return 0, net.ErrClosed
	}
	return t.conn.Write(p)
}

// park arranges for wake to be called when there is input. It may be called again before that.
func (t *transport) park(p *poller, s *session) error {
	if t.raw != nil {
		if t.fd < 0 {
			if err := t.raw.Control(func(fd uintptr) { t.fd = int(fd) }); err != nil {
				return err
			}
			if err := p.add(t.fd, s); err != nil {
				t.fd = -1
				return err
			}
		}
		return p.arm(t.fd)
	}
	if t.waiting {
		return nil
	}
	if t.peeked == nil {
		t.peeked = make(chan peek, 1)
	}
	t.waiting = true
	if err := t.base.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	go func(c net.Conn, to chan<- peek) {
		var b [1]byte
		n, err := c.Read(b[:])
		to <- peek{b: b[0], n: n, err: err}
		s.signal(eventInput)
	}(t.conn, t.peeked)
	return nil
}

// kill makes all reads and writes fail, those under way included. It may be called from any goroutine
// and leaves the descriptor open: only the session closes it, so that its number cannot be taken by
// another connection while the poller knows it as this one.
func (t *transport) kill() {
	t.killed.Store(true)
	_ = t.base.SetDeadline(time.Unix(1, 0))
}

// close ends the connection.
func (t *transport) close(p *poller) {
	if t.fd >= 0 {
		p.remove(t.fd)
		t.fd = -1
	}
	if t.gate != nil {
		// A close notification is written if that is possible at once.
		_ = t.base.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_ = t.conn.Close()
	}
	_ = t.outer.Close()
}

// isReset reports whether the client went away without saying so.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// adopt takes over what newTransport and startTLS have made.
func (t *transport) adopt(from *transport) {
	t.outer, t.base, t.conn, t.gate, t.raw, t.fd = from.outer, from.base, from.conn, from.gate, from.raw, -1
}
