package kit

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"
)

// proxyHeaderTimeout bounds the time from accept to a whole PROXY header. A balancer sends it in its first
// packet.
const proxyHeaderTimeout = 5 * time.Second

// readHeaders accepts connections, reads the header of each in a goroutine of its own, and hands those
// with a good one to Accept. Their number is bounded by max_connections. It ends with the listener.
//
// Policy: a peer outside the networks is closed unread; a peer inside them must send a version 2 header at
// once. LOCAL (a balancer's own health check) keeps the addresses of the connection. Version 1 and
// addresses that are not TCP are refused.
func (l *listener) readHeaders() {
	for {
		c, err := l.next()
		if err != nil {
			l.stop.Do(func() { close(l.done) })
			return
		}
		if !l.trusted(c.RemoteAddr()) {
			l.refusedSource.Inc()
			l.warnSource.Do(func() {
				l.log.Warn("connection refused: its source is not one of proxy_from (said once)", "remote", c.RemoteAddr().String())
			})
			c.Close()
			continue
		}
		go l.readHeader(c)
	}
}

// readHeader reads the header of one connection and hands it on, or closes it.
func (l *listener) readHeader(c *conn) {
	if err := c.takeHeader(l.patience); err != nil {
		l.refusedHeader.Inc()
		l.log.Warn("connection refused: PROXY header", "remote", c.RemoteAddr().String(), "error", err)
		c.Close()
		return
	}
	select {
	case l.ready <- c:
	case <-l.done:
		c.Close()
	}
}

// trusted reports whether a peer is a balancer.
func (l *listener) trusted(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	for _, n := range l.networks {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

// A version 2 header is 16 bytes and what their last two count: 12 bytes of signature, version and command,
// family and transport, length (big-endian). proxyMaxRest is far more than balancers send.
const (
	proxyFixed   = 16
	proxyMaxRest = 2048
)

// takeHeader reads the header from the start of a connection, to the byte: whoever waits for the socket
// afterwards finds what the client sent in it, and not in a buffer of ours.
func (c *conn) takeHeader(patience time.Duration) error {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	b := make([]byte, proxyFixed, proxyFixed+256)
	if _, err := io.ReadFull(c, b); err != nil {
		return fmt.Errorf("none was sent: %w", err)
	}
	if !bytes.HasPrefix(b, proxyproto.SIGV2) {
		return errors.New("none of version 2 was sent")
	}
	rest := int(binary.BigEndian.Uint16(b[proxyFixed-2:]))
	if rest > proxyMaxRest {
		return fmt.Errorf("it has %d bytes, the most is %d", rest, proxyMaxRest)
	}
	b = append(b, make([]byte, rest)...)
	if _, err := io.ReadFull(c, b[proxyFixed:]); err != nil {
		return fmt.Errorf("it is cut off: %w", err)
	}
	h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		return err
	}
	if err := checkHeader(h); err != nil {
		return err
	}
	if !h.Command.IsLocal() {
		c.remote, c.local = h.SourceAddr, h.DestinationAddr
	}
	return c.SetReadDeadline(time.Time{})
}

// checkHeader refuses headers that no balancer of ours sends.
func checkHeader(h *proxyproto.Header) error {
	if h.Version != 2 {
		return fmt.Errorf("version %d: only version 2 is taken", h.Version)
	}
	if h.Command.IsLocal() {
		return nil
	}
	for _, a := range []net.Addr{h.SourceAddr, h.DestinationAddr} {
		tcp, ok := a.(*net.TCPAddr)
		if !ok || tcp.AddrPort().Addr() == (netip.Addr{}) {
			return errors.New("its addresses are not of TCP")
		}
	}
	return nil
}
