package kit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/conf"
)

// farewellTimeout bounds the writing of a farewell to a connection over the limit. The socket is new and
// its buffer empty, so the write does not wait.
const farewellTimeout = time.Second

// Waits after an accept that failed for lack of resources: doubled from the first to the last.
const (
	acceptFirstWait = 5 * time.Millisecond
	acceptLastWait  = time.Second
)

// ListenOption changes a listener.
type ListenOption func(*listener)

// WithFarewell is what a connection over max_connections is sent before it is closed, whole with its line
// end: "421 4.3.2 Too many connections\r\n". Not for listeners that begin with TLS.
func WithFarewell(text string) ListenOption { return func(l *listener) { l.farewell = text } }

// Listen returns the listener of a configuration block, bound: a socket from systemd with its name, or
// one bound here. Its connections come, if the block has proxy_from, from the balancers only and carry
// the client's address of the PROXY header; headers are read beside Accept, so a slow one delays nobody.
// More than max_connections are refused. Accept fails only when the listener is closed.
func (e *Env) Listen(c conf.Listener, opts ...ListenOption) (net.Listener, error) {
	networks, err := c.ProxyNetworks()
	if err != nil {
		return nil, fmt.Errorf("listener %q: %w", c.Name, err)
	}
	e.once.Do(func() {
		if e.stats == nil {
			var reg prometheus.Registerer
			if e.Metrics != nil {
				reg = e.Metrics
			}
			e.stats = newListenerStats(reg)
		}
	})
	inner, ok := e.prebound[c.Name]
	if ok {
		delete(e.prebound, c.Name)
	} else if inner, err = bind(c.Name, c.Address); err != nil {
		return nil, err
	}
	l := &listener{
		Listener: inner, log: e.Log.With("listener", c.Name), max: int64(c.MaxConnections), networks: networks,
		open:          e.stats.open.WithLabelValues(c.Name),
		accepted:      e.stats.accepted.WithLabelValues(c.Name),
		refusedLimit:  e.stats.refused.WithLabelValues(c.Name, "limit"),
		refusedSource: e.stats.refused.WithLabelValues(c.Name, "source"),
		refusedHeader: e.stats.refused.WithLabelValues(c.Name, "header"),
		starved:       e.stats.refused.WithLabelValues(c.Name, "resources"),
		patience:      proxyHeaderTimeout,
		ready:         make(chan net.Conn),
		done:          make(chan struct{}),
	}
	for _, o := range opts {
		o(l)
	}
	e.OnClose("listener "+c.Name, func() error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return l, nil
}

// bind opens a TCP socket. Its error names listener, address and what to do.
func bind(name, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, bindError(name, address, err)
	}
	return l, nil
}

func bindError(name, address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listener %q: %w: %s is taken%s: stop that program, or write another address in this listener's block",
			name, syscall.EADDRINUSE, address, owner(address))
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listener %q: %w: user id %d may not bind %s: ports below 1024 need root, the capability CAP_NET_BIND_SERVICE, or a socket handed over by systemd",
			name, syscall.EACCES, os.Geteuid(), address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listener %q: %w: %s is not an address of this machine: write one that is, or none for all",
			name, syscall.EADDRNOTAVAIL, address)
	}
	return fmt.Errorf("listener %q: %w", name, err)
}

// listener bounds the connections of an inner listener and takes the PROXY header off them.
type listener struct {
	net.Listener
	log      *slog.Logger
	max      int64
	networks []netip.Prefix // the balancers; none: no PROXY protocol
	farewell string
	patience time.Duration // for a PROXY header

	open                         prometheus.Gauge
	accepted, starved            prometheus.Counter
	refusedLimit, refusedSource  prometheus.Counter
	refusedHeader                prometheus.Counter
	count                        atomic.Int64
	startProxy, stop, warnSource sync.Once
	ready                        chan net.Conn // connections whose PROXY header was read
	done                         chan struct{} // closed by Close
}

// Accept waits for the next connection that is let in.
func (l *listener) Accept() (net.Conn, error) {
	if len(l.networks) == 0 {
		c, err := l.next()
		if err != nil {
			return nil, err
		}
		l.accepted.Inc()
		return c, nil
	}
	l.startProxy.Do(func() { go l.readHeaders() })
	select {
	case c := <-l.ready:
		l.accepted.Inc()
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
}

// next accepts from the inner listener, within the bound.
func (l *listener) next() (*conn, error) {
	wait := acceptFirstWait
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if !starving(err) {
				return nil, err
			}
			l.starved.Inc()
			l.log.Error("cannot accept: raise the limit of open files, or lower max_connections", "error", err, "wait", wait)
			select {
			case <-time.After(wait):
			case <-l.done:
			}
			wait = min(2*wait, acceptLastWait)
			continue
		}
		wait = acceptFirstWait
		if l.max > 0 && l.count.Load() >= l.max {
			l.refusedLimit.Inc()
			if l.farewell != "" && c.SetWriteDeadline(time.Now().Add(farewellTimeout)) == nil {
				_, _ = c.Write([]byte(l.farewell)) // a courtesy: the connection is closed in any case
			}
			c.Close()
			continue
		}
		l.count.Add(1)
		l.open.Inc()
		return &conn{Conn: c, release: func() { l.count.Add(-1); l.open.Dec() }}, nil
	}
}

// starving tells a lack of resources, which passes, from a listener that is gone. ECONNABORTED is a
// client that left the queue: the net package already passes over it.
func starving(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Close stops accepting. Connections that were handed out stay open.
func (l *listener) Close() error {
	l.stop.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// conn is a counted connection, with the addresses of its PROXY header if it had one.
type conn struct {
	net.Conn
	once          sync.Once
	release       func()
	remote, local net.Addr // nil: those of the socket
}

// RemoteAddr is the client's address.
func (c *conn) RemoteAddr() net.Addr {
	if c.remote != nil {
		return c.remote
	}
	return c.Conn.RemoteAddr()
}

// LocalAddr is the address that the client connected to.
func (c *conn) LocalAddr() net.Addr {
	if c.local != nil {
		return c.local
	}
	return c.Conn.LocalAddr()
}

// Close gives the place back first: a client that sees the end and connects again must find it free.
func (c *conn) Close() error {
	c.once.Do(c.release)
	return c.Conn.Close()
}

// NetConn gives the connection itself to servers that wait for their clients in a way of their own. It
// is closed through c, which is counted.
func (c *conn) NetConn() net.Conn { return c.Conn }

// CloseWrite closes the sending half, where the connection has halves.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
