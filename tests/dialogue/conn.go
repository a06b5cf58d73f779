package dialogue

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// maxLine bounds a line from the server.
const maxLine = 1 << 20

// conn is one connection of a script. Writes go through a queue and a goroutine of their own, so that
// the player is always free to read.
type conn struct {
	raw    net.Conn
	r      *bufio.Reader
	forbid []expectation

	mu      sync.Mutex
	cond    sync.Cond
	queue   [][]byte
	busy    bool // a write is under way
	closed  bool
	writing error // the first write error
}

func newConn(raw net.Conn) *conn {
	c := &conn{raw: raw, r: bufio.NewReader(raw)}
	c.cond.L = &c.mu
	go c.write()
	return c
}

// write sends what is queued until the connection is closed.
func (c *conn) write() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for len(c.queue) == 0 && !c.closed {
			c.cond.Wait()
		}
		if c.closed {
			return
		}
		data, raw := c.queue[0], c.raw
		c.queue = c.queue[1:]
		c.busy = true
		c.mu.Unlock()
		_, err := raw.Write(data)
		c.mu.Lock()
		c.busy = false
		if err != nil && c.writing == nil {
			c.writing = err
		}
		c.cond.Broadcast()
	}
}

func (c *conn) send(data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, data)
	c.cond.Broadcast()
}

// flush waits until everything queued is written, for at most d.
func (c *conn) flush(d time.Duration) error {
	expired := false
	timer := time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		expired = true
		c.cond.Broadcast()
	})
	defer timer.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for (len(c.queue) > 0 || c.busy) && c.writing == nil && !expired {
		c.cond.Wait()
	}
	if c.writing != nil {
		return fmt.Errorf("sending: %w", c.writing)
	}
	if expired {
		return fmt.Errorf("the server did not take what was sent within %v", d)
	}
	return nil
}

func (c *conn) halfClose(d time.Duration) error {
	if err := c.flush(d); err != nil {
		return err
	}
	half, ok := c.raw.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("a %T cannot be closed in one direction", c.raw)
	}
	return half.CloseWrite()
}

func (c *conn) startTLS(config *tls.Config, d time.Duration) error {
	if err := c.flush(d); err != nil {
		return err
	}
	if n := c.r.Buffered(); n > 0 {
		rest, _ := c.r.Peek(n)
		return fmt.Errorf("the server sent %q before the TLS handshake", rest)
	}
	secure := tls.Client(c.raw, config)
	if err := secure.SetDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	if err := secure.Handshake(); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	if err := secure.SetDeadline(time.Time{}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = secure
	c.r = bufio.NewReader(secure)
	return nil
}

func (c *conn) close() {
	c.mu.Lock()
	c.closed = true
	c.cond.Broadcast()
	raw := c.raw
	c.mu.Unlock()
	raw.Close()
}

// line reads one line without its CRLF. A line that ends in a bare LF, or in the end of the
// connection, is returned with that LF, or with io.ErrUnexpectedEOF.
func (c *conn) line(deadline time.Time) (string, error) {
	if err := c.raw.SetReadDeadline(deadline); err != nil {
		return "", err
	}
	var line []byte
	for {
		part, err := c.r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return string(line[:64]), fmt.Errorf("a line of more than %d bytes", maxLine)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			return string(line), io.ErrUnexpectedEOF
		case err != nil:
			return string(line), err
		}
		if n := len(line); n >= 2 && line[n-2] == '\r' {
			line = line[:n-2]
		}
		return string(line), nil
	}
}

func (c *conn) bytes(n int, deadline time.Time) ([]byte, error) {
	if err := c.raw.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	data := make([]byte, n)
	n, err := io.ReadFull(c.r, data)
	return data[:n], err
}

// eof waits for the server's close and fails on any byte before it. A reset is a close as well: a
// server that refuses to read on cannot do better.
func (c *conn) eof(deadline time.Time) error {
	if err := c.raw.SetReadDeadline(deadline); err != nil {
		return err
	}
	_, err := c.r.Peek(1)
	switch {
	case err == nil:
		rest, _ := c.r.Peek(min(c.r.Buffered(), 200))
		return fmt.Errorf("expected the end of the connection, the server sent %q", rest)
	case closedByPeer(err):
		return nil
	default:
		return fmt.Errorf("expected the end of the connection: %w", err)
	}
}

func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
