package popsession

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"shoal/daemons/internal/clock"
)

// Server serves POP3 to any number of connections.
type Server struct {
	opt    Options
	log    *slog.Logger
	clock  clock.Clock
	m      *metrics
	lim    atomic.Pointer[Limits]
	ctx    context.Context // ends with Close; commands in progress hang from it
	cancel context.CancelFunc
	ids    atomic.Uint64

	mu        sync.Mutex
	closing   bool
	listeners map[net.Listener]struct{}
	sessions  map[*session]struct{}
	byAddress map[string]int
	byUser    map[string]int
	running   sync.WaitGroup // goroutines of connections
}

// New makes a server. It does nothing until Serve is called.
func New(opt Options) (*Server, error) {
	if opt.Store == nil || opt.Auth == nil || opt.Log == nil {
		return nil, errors.New("popsession: Options.Store, Auth and Log are required")
	}
	if opt.Clock == nil {
		opt.Clock = clock.System()
	}
	m, err := newMetrics(opt.Metrics)
	if err != nil {
		return nil, fmt.Errorf("popsession: metrics: %w", err)
	}
	s := &Server{
		opt:       opt,
		log:       opt.Log,
		clock:     opt.Clock,
		m:         m,
		listeners: map[net.Listener]struct{}{},
		sessions:  map[*session]struct{}{},
		byAddress: map[string]int{},
		byUser:    map[string]int{},
	}
	s.SetLimits(opt.Limits)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// SetLimits changes the limits for what begins from now on: a reload of the configuration.
func (s *Server) SetLimits(l Limits) {
	if l == (Limits{}) {
		l = DefaultLimits()
	}
	s.lim.Store(&l)
}

func (s *Server) limits() *Limits { return s.lim.Load() }

// Serve accepts connections from l until l is closed or Shutdown is called, and then returns nil. It
// may be called for several listeners at once. It closes l.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, false) }

// ServeTLS is Serve for a listener whose connections begin with TLS (RFC 8314). Options.TLS must be
// set. l hands out the bare connections.
func (s *Server) ServeTLS(l net.Listener) error {
	if s.opt.TLS == nil {
		return errors.New("popsession: ServeTLS without Options.TLS")
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
		s.log.Error("cannot accept POP3 connections", "listener", l.Addr().String(), "error", err)
		if clock.Sleep(s.ctx, s.clock, pause) != nil {
			return nil
		}
		pause = min(2*pause, time.Second)
	}
}

// begin gives a connection its goroutine, unless there are too many or the server is going down.
func (s *Server) begin(c net.Conn, secure bool) {
	ses := newSession(s, c)
	s.mu.Lock()
	switch {
	case s.closing:
		s.m.refused.WithLabelValues("shutdown").Inc()
	case len(s.sessions) >= s.limits().MaxConnections:
		s.m.refused.WithLabelValues("connections").Inc()
	default:
		s.sessions[ses] = struct{}{}
		s.running.Add(1)
		s.mu.Unlock()
		go ses.run(secure)
		return
	}
	s.mu.Unlock()
	c.Close()
}

// admitAddress counts a connection from the client's address and reports whether there is room for it.
func (s *Server) admitAddress(ses *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byAddress[ses.remote] >= s.limits().MaxPerAddress {
		return false
	}
	s.byAddress[ses.remote]++
	ses.counted = true
	s.m.accepted.Inc()
	s.m.connections.Inc()
	return true
}

// admitUser counts a login to the account and reports whether there is room for it.
func (s *Server) admitUser(account string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byUser[account] >= s.limits().MaxPerUser {
		return false
	}
	s.byUser[account]++
	return true
}

// dismissUser takes back what admitUser counted.
func (s *Server) dismissUser(account string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	countDown(s.byUser, account)
}

// forget takes the session out of the server's tables.
func (s *Server) forget(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, ses)
	if ses.counted {
		countDown(s.byAddress, ses.remote)
		s.m.connections.Dec()
	}
	if ses.user != nil {
		countDown(s.byUser, ses.user.ID)
	}
	s.running.Done()
}

func countDown(m map[string]int, key string) {
	if m[key]--; m[key] <= 0 {
		delete(m, key)
	}
}

// stop closes the listeners and hands all sessions to f.
func (s *Server) stop(f func(*session)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for l := range s.listeners {
		l.Close()
	}
	for ses := range s.sessions {
		f(ses)
	}
}

// Shutdown ends all sessions: those that wait for their client at once and without a word, as RFC 1939 §3
// has it for the server's time-out, the others when their command is done. It returns when all are gone, or
// closes the rest when ctx ends and returns its error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop((*session).interrupt)
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

// Close ends all sessions without waiting for their commands.
func (s *Server) Close() error {
	s.cancel()
	s.stop(func(ses *session) { ses.conn.Close() })
	s.running.Wait()
	return nil
}

// startTLS makes the server's side of a handshake on c.
func (s *Server) startTLS(c net.Conn) (*tls.Conn, error) {
	secure := tls.Server(c, s.opt.TLS)
	ctx, cancel := context.WithTimeout(s.ctx, s.limits().LoginTimeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secure, nil
}
