// Package acceptor runs the connections of a line protocol: it accepts them on any number of listeners, bounds
// them in all, per client address and per account, gives each a goroutine, and ends them when the server goes down.
//
// What is said on a connection is the business of the package that gives Options.Handle.
//
//   - A connection is counted from Accept on; its address only once Conn.Admit was called, because behind a balancer
//     the address is known only after the PROXY header was read, which must not hold up others.
//   - Interrupt ends a wait for the client, now or next time, and nothing else: a command that is being done is done.
//   - A panic in Handle ends that connection only.
package acceptor

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
)

// Limits are read anew for each connection.
type Limits struct {
	Connections int           // in all
	PerAddress  int           // from one client address
	PerUser     int           // logged in to one account
	Handshake   time.Duration // for TLS
}

// Metrics are what a Server counts; their names are the protocol's. All are required.
type Metrics struct {
	Connections prometheus.Gauge       // open and admitted
	Accepted    prometheus.Counter     // admitted
	Refused     *prometheus.CounterVec // reason: connections, address, tls, shutdown
	Panics      prometheus.Counter
}

// Options of New. Handle, Limits, Log and Metrics are required.
type Options struct {
	Protocol string      // for the log
	Handle   func(*Conn) // the life of a connection; it is closed afterwards
	Limits   func() Limits
	TLS      *tls.Config // nil: no TLS
	Log      *slog.Logger
	Metrics  Metrics
	Clock    clock.Clock // nil: the system's
}

// Server accepts connections.
type Server struct {
	o      Options
	ctx    context.Context // ends with Close; commands in progress hang from it
	cancel context.CancelFunc
	ids    atomic.Uint64

	mu        sync.Mutex
	closing   bool
	listeners map[net.Listener]struct{}
	conns     map[*Conn]struct{}
	byAddress map[string]int
	byUser    map[string]int
	running   sync.WaitGroup // goroutines of connections
}

// New makes a server. It does nothing until Serve is called.
func New(o Options) (*Server, error) {
	if o.Handle == nil || o.Limits == nil || o.Log == nil || o.Metrics.Refused == nil {
		return nil, errors.New("acceptor: Options.Handle, Limits, Log and Metrics are required")
	}
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	s := &Server{o: o, listeners: map[net.Listener]struct{}{}, conns: map[*Conn]struct{}{}, byAddress: map[string]int{}, byUser: map[string]int{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Context ends with Close.
func (s *Server) Context() context.Context { return s.ctx }

// HasTLS says whether connections can be secured.
func (s *Server) HasTLS() bool { return s.o.TLS != nil }

// Serve accepts connections from l until l is closed or Shutdown is called, and then returns nil. It may be called for
// several listeners at once. It closes l.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, false) }

// ServeTLS is Serve for a listener whose connections begin with TLS (RFC 8314). l hands out the bare connections.
func (s *Server) ServeTLS(l net.Listener) error {
	if s.o.TLS == nil {
		return errors.New("acceptor: ServeTLS without Options.TLS")
	}
	return s.serve(l, true)
}

func (s *Server) serve(l net.Listener, secure bool) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		l.Close()
		return nil
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		l.Close()
	}()
	pause := 5 * time.Millisecond
	for {
		c, err := l.Accept()
		if err == nil {
			pause = 5 * time.Millisecond
			s.begin(c, secure)
			continue
		}
		s.mu.Lock()
		closing := s.closing
		s.mu.Unlock()
		if closing || errors.Is(err, net.ErrClosed) {
			return nil
		}
		// Out of descriptors, for instance: it may pass, and must not spin.
		s.o.Log.Error("cannot accept "+s.o.Protocol+" connections", "listener", l.Addr().String(), "error", err)
		if clock.Sleep(s.ctx, s.o.Clock, pause) != nil {
			return nil
		}
		pause = min(2*pause, time.Second)
	}
}

// begin gives a connection its goroutine, unless there are too many or the server is going down.
func (s *Server) begin(nc net.Conn, secure bool) {
	c := &Conn{s: s, id: s.ids.Add(1), conn: nc, secure: secure}
	reason := ""
	s.mu.Lock()
	switch {
	case s.closing:
		reason = "shutdown"
	case len(s.conns) >= s.o.Limits().Connections:
		reason = "connections"
	default:
		s.conns[c] = struct{}{}
		s.running.Add(1)
	}
	s.mu.Unlock()
	if reason != "" {
		s.o.Metrics.Refused.WithLabelValues(reason).Inc()
		nc.Close()
		return
	}
	go c.run()
}

// stop closes the listeners and hands all connections to f.
func (s *Server) stop(f func(*Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		f(c)
	}
}

// Shutdown interrupts all connections: those that wait for their client end at once, the others when their command
// is done. It returns when all are gone, or closes the rest when ctx ends and returns its error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop((*Conn).Interrupt)
	gone := make(chan struct{})
	go func() {
		s.running.Wait()
		close(gone)
	}()
	var err error
	select {
	case <-gone:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.Close()
	return err
}

// Close ends all connections without waiting for their commands.
func (s *Server) Close() error {
	s.cancel()
	s.stop(func(c *Conn) { c.conn.Close() })
	s.running.Wait()
	return nil
}

// Conn is one connection.
type Conn struct {
	s       *Server
	id      uint64
	conn    net.Conn // what was accepted: closing it ends everything
	secure  bool     // begins with TLS
	remote  string
	user    string
	counted bool
	ending  atomic.Bool
}

func (c *Conn) run() {
	defer c.forget()
	defer c.conn.Close()
	defer func() {
		if p := recover(); p != nil {
			c.s.o.Metrics.Panics.Inc()
			c.s.o.Log.Error("session ended by a bug", "session", c.id, "remote", c.remote, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	c.remote = c.conn.RemoteAddr().String() // a PROXY header is read now
	if host, _, err := net.SplitHostPort(c.remote); err == nil {
		c.remote = host
	}
	c.s.o.Handle(c)
}

// ID tells the connections of a server apart.
func (c *Conn) ID() uint64 { return c.id }

// Remote is the client's address, without its port.
func (c *Conn) Remote() string { return c.remote }

// Stream is what the session talks over at first: the connection, or TLS on it where the listener has it so. ok is false
// when there was no handshake.
func (c *Conn) Stream() (stream net.Conn, ok bool) {
	if !c.secure {
		return c.conn, true
	}
	t, err := c.StartTLS()
	return t, err == nil
}

// StartTLS makes the server's side of a handshake. The error has been logged.
func (c *Conn) StartTLS() (*tls.Conn, error) {
	t := tls.Server(c.conn, c.s.o.TLS)
	ctx, cancel := context.WithTimeout(c.s.ctx, c.s.o.Limits().Handshake)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		c.s.o.Metrics.Refused.WithLabelValues("tls").Inc()
		c.s.o.Log.Debug("TLS handshake failed", "session", c.id, "remote", c.remote, "error", err)
		return nil, err
	}
	return t, nil
}

// Admit counts a connection from the client's address and reports whether there is room for it.
func (c *Conn) Admit() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.s.byAddress[c.remote] >= c.s.o.Limits().PerAddress {
		c.s.o.Metrics.Refused.WithLabelValues("address").Inc()
		return false
	}
	c.s.byAddress[c.remote]++
	c.counted = true
	c.s.o.Metrics.Accepted.Inc()
	c.s.o.Metrics.Connections.Inc()
	return true
}

// AdmitUser counts a login to an account and reports whether there is room for it. A connection has at most one.
func (c *Conn) AdmitUser(account string) bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.s.byUser[account] >= c.s.o.Limits().PerUser {
		return false
	}
	c.s.byUser[account]++
	c.user = account
	return true
}

// DismissUser takes back what AdmitUser counted.
func (c *Conn) DismissUser() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.dismissUser()
}

func (c *Conn) dismissUser() {
	if c.user != "" {
		countDown(c.s.byUser, c.user)
		c.user = ""
	}
}

// Interrupt wakes a session that waits for its client. It may be called from any goroutine.
func (c *Conn) Interrupt() {
	c.ending.Store(true)
	_ = c.conn.SetReadDeadline(time.Unix(1, 0))
}

// Ending says that Interrupt was called.
func (c *Conn) Ending() bool { return c.ending.Load() }

// AllowRead gives the next reads until t. It reports false when the session is to end instead: Interrupt overrides it,
// whenever it comes.
func (c *Conn) AllowRead(t time.Time) (bool, error) {
	if err := c.conn.SetReadDeadline(t); err != nil {
		return false, err
	}
	return !c.Ending(), nil // looked at behind setting the deadline
}

// AllowWrite gives the next writes until t.
func (c *Conn) AllowWrite(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// forget takes the connection out of the server's tables.
func (c *Conn) forget() {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if c.counted {
		countDown(s.byAddress, c.remote)
		s.o.Metrics.Connections.Dec()
	}
	c.dismissUser()
	s.running.Done()
}

func countDown(m map[string]int, key string) {
	if m[key]--; m[key] <= 0 {
		delete(m, key)
	}
}
