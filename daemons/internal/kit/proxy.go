package kit

import (
	"errors"
	"fmt"
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
	stripped, err := takeHeader(c, l.patience)
	if err != nil {
		l.refusedHeader.Inc()
		l.log.Warn("connection refused: PROXY header", "remote", c.RemoteAddr().String(), "error", err)
		c.Close()
		return
	}
	select {
	case l.ready <- stripped:
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

// proxied is a connection behind its PROXY header, with the addresses that the header gave.
type proxied struct {
	*proxyproto.Conn
	inner         *conn
	remote, local net.Addr
}

func (p *proxied) RemoteAddr() net.Addr { return p.remote }
func (p *proxied) LocalAddr() net.Addr  { return p.local }
func (p *proxied) CloseWrite() error    { return p.inner.CloseWrite() }

// takeHeader reads the header from the start of a connection.
func takeHeader(c *conn, patience time.Duration) (net.Conn, error) {
	pc := proxyproto.NewConn(c, proxyproto.WithPolicy(proxyproto.REQUIRE),
		proxyproto.SetReadHeaderTimeout(patience), proxyproto.ValidateHeader(checkHeader))
	// A read of nothing makes the library parse the header and return its error.
	if _, err := pc.Read(nil); err != nil {
		return nil, err
	}
	if pc.ProxyHeader() == nil {
		return nil, errors.New("none was sent")
	}
	return &proxied{Conn: pc, inner: c, remote: pc.RemoteAddr(), local: pc.LocalAddr()}, nil
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
