package imapsession

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/sasl"
	"shoal/daemons/internal/sharing"
)

// Server serves IMAP to any number of connections.
type Server struct {
	opt     Options
	log     *slog.Logger
	clock   clock.Clock
	m       *metrics
	lim     atomic.Pointer[bounds]
	poller  *poller
	workers *workers
	sasl    *sasl.Server
	sharing *sharing.Service
	ctx     context.Context // ends with Close; commands in progress hang from it
	cancel  context.CancelFunc
	sweeper sync.WaitGroup
	torn    sync.Once
	ids     atomic.Uint64

	commands map[string]*command

	mu        sync.Mutex
	closing   bool
	listeners map[net.Listener]struct{}
	sessions  map[*session]struct{}
	byAddress map[string]int
	byUser    map[string]int
	empty     chan struct{} // closed when closing and no session is left
}

// sweepEvery is how often deadlines of parked sessions are looked at.
const sweepEvery = 5 * time.Second

// New makes a server. It does nothing until Serve is called.
func New(opt Options) (*Server, error) {
	if opt.Store == nil || opt.Auth == nil || opt.Log == nil {
		return nil, errors.New("imapsession: Options.Store, Auth and Log are required")
	}
	if opt.Clock == nil {
		opt.Clock = clock.System()
	}
	m, err := newMetrics(opt.Metrics)
	if err != nil {
		return nil, fmt.Errorf("imapsession: metrics: %w", err)
	}
	p, err := newPoller()
	if err != nil {
		return nil, fmt.Errorf("imapsession: %w", err)
	}
	s := &Server{
		opt:       opt,
		log:       opt.Log,
		clock:     opt.Clock,
		m:         m,
		poller:    p,
		sasl:      sasl.New(opt.Auth),
		workers:   newWorkers(4 * runtime.GOMAXPROCS(0)),
		listeners: map[net.Listener]struct{}{},
		sessions:  map[*session]struct{}{},
		byAddress: map[string]int{},
		byUser:    map[string]int{},
		empty:     make(chan struct{}),
		commands:  newCommands(),
	}
	if opt.Directory == nil {
		opt.Directory = sharing.Nobody{}
	}
	s.sharing = sharing.New(sharing.Options{Store: opt.Store, Directory: opt.Directory, Clock: opt.Clock, Log: opt.Log})
	s.SetLimits(opt.Limits)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go p.run(func(c *session) { c.signal(eventInput) })
	s.sweeper.Add(1)
	go s.sweep()
	return s, nil
}

// SetLimits changes the limits for what begins from now on: a reload of the configuration.
func (s *Server) SetLimits(l Limits) {
	if l == (Limits{}) {
		l = DefaultLimits()
	}
	s.lim.Store(newBounds(l))
}

func (s *Server) limits() *bounds { return s.lim.Load() }

// Serve accepts connections from l until l is closed or Shutdown is called, and then returns nil. It
// may be called for several listeners at once. It closes l.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, false) }

// ServeTLS is Serve for a listener whose connections begin with TLS (RFC 8314). Options.TLS must be
// set. l hands out the bare connections.
func (s *Server) ServeTLS(l net.Listener) error {
	if s.opt.TLS == nil {
		return errors.New("imapsession: ServeTLS without Options.TLS")
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
			go s.begin(c, secure)
			continue
		}
		s.mu.Lock()
		closing := s.closing
		s.mu.Unlock()
		if closing || errors.Is(err, net.ErrClosed) {
			return nil
		}
		// Out of descriptors, for instance: it may pass, and must not spin.
		s.log.Error("cannot accept IMAP connections", "listener", l.Addr().String(), "error", err)
		if clock.Sleep(s.ctx, s.clock, pause) != nil {
			return nil
		}
		pause = min(2*pause, time.Second)
	}
}

// begin makes a session of an accepted connection and greets.
func (s *Server) begin(c net.Conn, secure bool) {
	t, early, err := newTransport(c)
	if err != nil {
		s.m.refused.WithLabelValues("unreadable").Inc()
		s.log.Debug("connection ended before it began", "error", err)
		c.Close()
		return
	}
	remote := c.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(remote); err == nil {
		remote = host
	}
	if secure {
		if err := t.startTLS(s.opt.TLS, early, s.limits().LoginTimeout); err != nil {
			s.m.refused.WithLabelValues("tls").Inc()
			s.log.Debug("TLS handshake failed", "remote", remote, "error", err)
			t.close(s.poller)
			return
		}
		early = nil
	}
	ses := newSession(s, s.ids.Add(1), remote)
	ses.t.adopt(t)
	ses.dec.Unread(early)
	ses.events.Store(eventRunning | eventInput)
	if reason := s.register(ses); reason != "" {
		s.m.refused.WithLabelValues(reason).Inc()
		ses.enc.Raw("* BYE [UNAVAILABLE] Too many connections, try again later\r\n")
		ses.enc.Release()
		ses.t.close(s.poller)
		return
	}
	ses.greet()
	ses.run()
}

// register takes the session into the server's tables, or says why not.
func (s *Server) register(ses *session) (refused string) {
	lim := s.limits()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return "shutdown"
	case len(s.sessions) >= lim.MaxConnections:
		return "connections"
	case s.byAddress[ses.remote] >= lim.MaxPerAddress:
		return "address"
	}
	s.sessions[ses] = struct{}{}
	s.byAddress[ses.remote]++
	ses.noted = true
	s.m.accepted.Inc()
	s.m.connections.Inc()
	return ""
}

// release frees the place of a session that ends. It comes before the connection is closed, so that a client
// that sees the end finds room.
func (s *Server) release(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ses.noted {
		return
	}
	countDown(s.byAddress, ses.remote)
	if ses.user != nil {
		countDown(s.byUser, ses.user.ID)
	}
	s.m.connections.Dec()
}

// forget takes the session out of the table once its connection is closed.
func (s *Server) forget(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ses.noted {
		return
	}
	ses.noted = false
	delete(s.sessions, ses)
	if s.closing && len(s.sessions) == 0 {
		close(s.empty)
	}
}

func countDown(m map[string]int, key string) {
	if m[key]--; m[key] <= 0 {
		delete(m, key)
	}
}

// admit counts a login to the account and reports whether there is room for it.
func (s *Server) admit(account string) bool {
	lim := s.limits()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byUser[account] >= lim.MaxPerUser {
		return false
	}
	s.byUser[account]++
	return true
}

// sweep wakes the sessions whose deadline has passed.
func (s *Server) sweep() {
	defer s.sweeper.Done()
	for clock.Sleep(s.ctx, s.clock, sweepEvery) == nil {
		now := int64(s.clock.Boot())
		s.mu.Lock()
		for ses := range s.sessions {
			if now >= ses.deadline.Load() && ses.events.Load() == 0 {
				ses.signal(eventDeadline)
			}
		}
		s.mu.Unlock()
	}
}

// stop closes the listeners and reports all sessions to f.
func (s *Server) stop(f func(*session)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.closing = true
		for l := range s.listeners {
			l.Close()
		}
		if len(s.sessions) == 0 {
			close(s.empty)
		}
	}
	for ses := range s.sessions {
		f(ses)
	}
}

// Shutdown ends all sessions: those that wait for their client get BYE at once, the others when
// their command is done. It returns when all are gone, or closes the rest when ctx ends and returns
// its error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop(func(ses *session) { ses.signal(eventShutdown) })
	var err error
	select {
	case <-s.empty:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.Close()
	return err
}

// Close ends all sessions without waiting for their commands.
func (s *Server) Close() error {
	s.cancel()
	s.stop(func(ses *session) {
		ses.t.kill()
		ses.signal(eventKill)
	})
	<-s.empty
	s.sweeper.Wait()
	s.torn.Do(func() {
		s.poller.close()
		s.workers.close()
	})
	return nil
}

// dismiss takes back what admit counted.
func (s *Server) dismiss(account string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	countDown(s.byUser, account)
}
