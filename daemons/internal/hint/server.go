package hint

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/pki"
)

// maxConnections bounds the connections of a server, handshakes included.
const maxConnections = 1024

// Store takes hints (*mailstore.Store does). Hint must not block.
type Store interface {
	Hint(mailstore.Ref)
}

// Reports takes what other servers say of logins (*authn.Authenticator does). Heard must not block.
type Reports interface {
	Heard(user, address string, known bool)
}

// ServerOptions of NewServer. TLS and Log are required.
type ServerOptions struct {
	Store    Store       // nil: hints are passed over, as a switch does
	Reports  Reports     // nil: reports are passed over
	TLS      *tls.Config // demands a certificate of role box or switch (pki: ServerTLS("box", "switch"))
	Settings *Settings   // nil: the defaults
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Clock    clock.Clock
}

// Server takes hints from other boxes.
type Server struct {
	o       ServerOptions
	set     Settings
	metrics *serverMetrics
	// ctx ends with Close.
	ctx    context.Context
	cancel context.CancelFunc

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]bool
	conns     map[net.Conn]bool
	running   sync.WaitGroup
}

type serverMetrics struct {
	received prometheus.Counter
	refused  *prometheus.CounterVec
	peers    prometheus.Gauge
}

// NewServer builds a server.
func NewServer(o ServerOptions) (*Server, error) {
	if o.TLS == nil || o.Log == nil {
		return nil, errors.New("hint: TLS configuration or log is missing")
	}
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	s := &Server{o: o, set: settings(o.Settings), listeners: map[net.Listener]bool{}, conns: map[net.Conn]bool{}}
	s.metrics = &serverMetrics{
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_hint_received_total", Help: "Hints taken from other boxes.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_hint_refused_total",
			Help: "Refused connections and hints of other boxes, by reason (full, certificate, protocol, rate).",
		}, []string{"reason"}),
		peers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_hint_incoming_connections", Help: "Open connections from other boxes.",
		}),
	}
	if o.Metrics != nil {
		if err := errors.Join(o.Metrics.Register(s.metrics.received), o.Metrics.Register(s.metrics.refused),
			o.Metrics.Register(s.metrics.peers)); err != nil {
			return nil, fmt.Errorf("hint: metrics: %w", err)
		}
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

func settings(s *Settings) Settings {
	if s != nil {
		return *s
	}
	var d Settings
	conf.SetDefaults(&d)
	return d
}

// Serve accepts connections on l until Close, and then returns nil. It closes l.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return l.Close()
	}
	s.listeners[l] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		_ = l.Close()
	}()
	for wait := time.Duration(0); ; {
		c, err := l.Accept()
		if err != nil {
			if s.ctx.Err() != nil {
				return nil
			}
			var ne net.Error
			if errors.Is(err, net.ErrClosed) || errors.As(err, &ne) && !ne.Timeout() && wait > time.Second {
				return fmt.Errorf("hint: accept: %w", err)
			}
			// Out of file descriptors or the like: go on after a moment.
			wait = max(5*time.Millisecond, 2*wait)
			if clock.Sleep(s.ctx, s.o.Clock, wait) != nil {
				return nil
			}
			continue
		}
		wait = 0
		s.mu.Lock()
		if s.closed || len(s.conns) >= maxConnections {
			s.mu.Unlock()
			s.metrics.refused.WithLabelValues("full").Inc()
			_ = c.Close()
			continue
		}
		s.conns[c] = true
		s.running.Add(1)
		s.mu.Unlock()
		go func() {
			defer s.running.Done()
			s.serve(c)
			_ = c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		}()
	}
}

// Close ends all listeners and connections.
func (s *Server) Close() error {
	s.cancel()
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		_ = l.Close()
	}
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

func (s *Server) serve(raw net.Conn) {
	log := s.o.Log.With("remote", raw.RemoteAddr().String())
	c := tls.Server(raw, s.o.TLS)
	ctx, cancel := context.WithTimeout(s.ctx, s.set.ConnectTimeout)
	err := c.HandshakeContext(ctx)
	cancel()
	box := false
	if err == nil {
		var role, name string
		if role, name, err = pki.PeerIdentity(c.ConnectionState()); err == nil && !slices.Contains(roles, role) {
			err = fmt.Errorf("%w: %s/%s", pki.ErrWrongRole, role, name)
		}
		box = role == pki.RoleBox
		log = log.With("peer", name)
	}
	if err != nil {
		if s.ctx.Err() == nil {
			s.metrics.refused.WithLabelValues("certificate").Inc()
			log.Warn("hint connection refused", "event", "hint-refused", "error", err)
		}
		return
	}
	s.metrics.peers.Inc()
	defer s.metrics.peers.Dec()
	if err := s.take(c, box); err != nil && s.ctx.Err() == nil {
		s.metrics.refused.WithLabelValues("protocol").Inc()
		log.Warn("hint connection ended", "event", "hint-protocol", "error", err)
		_ = c.SetWriteDeadline(time.Now().Add(s.set.WriteTimeout))
		_, _ = c.Write(fmt.Appendf(nil, "e %s\n", err))
	}
	_ = c.SetWriteDeadline(time.Now().Add(s.set.WriteTimeout))
	_ = c.Close()
}

// take reads hints until the peer ends the connection or says nothing for too long; both are no error.
func (s *Server) take(c net.Conn, box bool) error {
	_ = c.SetWriteDeadline(time.Now().Add(s.set.WriteTimeout))
	if _, err := c.Write(appendGreeting(nil)); err != nil {
		return nil
	}
	in := bufio.NewReaderSize(c, maxLine)
	allow := newBucket(s.set.Rate, s.o.Clock.Boot())
	for first := true; ; first = false {
		if in.Buffered() == 0 {
			// A peer that closes after its own time-out is the usual case: so wait a little longer.
			_ = c.SetReadDeadline(time.Now().Add(s.set.IdleTimeout + 30*time.Second))
		}
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return errProtocol("line too long")
		case errors.Is(err, io.EOF) && len(line) > 0:
			return errProtocol("line without end")
		case err != nil:
			return nil
		}
		line = line[:len(line)-1]
		if first {
			if err := parseGreeting(line); err != nil {
				return err
			}
			continue
		}
		report, isReport, err := parseReport(line)
		if err != nil {
			return err
		}
		var ref mailstore.Ref
		known := false
		if !isReport {
			if ref, known, err = parseLine(line); err != nil {
				return err
			}
		}
		if allow.take(1, s.o.Clock.Boot()) == 0 {
			s.metrics.refused.WithLabelValues("rate").Inc()
			continue
		}
		switch {
		case isReport && s.o.Reports != nil:
			s.metrics.received.Inc()
			s.o.Reports.Heard(report.user, report.addr, report.kind == 'k')
		case known && box && s.o.Store != nil:
			s.metrics.received.Inc()
			s.o.Store.Hint(ref)
		}
	}
}
