package ldapsession

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

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/access"
	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// Rights are what an identity may do.
type Rights struct {
	ReadSelf bool // search and compare its own entry
	ReadAll  bool // search and compare every entry, secret attributes excepted
	Secrets  bool // get secret attributes in a replication search
	// Verifiers: get verifiers (authPassword) in a search that names them.
	Verifiers bool
	// Content, if set, is all that it gets, in a replication search; it searches nothing else but its own entry and
	// the suffix entry. ContentError is why there is none where there should be.
	Content      *dirstore.Content
	ContentError error
	// OwnPasswords: what it sets as passwords are users' own, from another server; the policy is not asked.
	OwnPasswords bool
	Write        bool // every update
	// Modify, if set, says whether an identity without Write may change the entry of this normal name in this
	// way; Add, whether it may add that entry. Deleting and renaming entries need Write.
	Modify   func(norm []byte, changes []ldapwire.Change) bool
	Add      func(norm []byte, attributes []ldapwire.Attribute) bool
	Proxy    bool // may act for others (RFC 4370)
	NoLimits bool // the limits on entries and time do not apply
	// KeepPassword denies what others may: to change its own password (RFC 3062).
	KeepPassword bool
	// View, if set, decides about entries and attributes in the place of ReadSelf, ReadAll, Verifiers, Secrets, Write, Modify, Add
	// and KeepPassword.
	View *access.View
}

// Limits bound what clients may ask for. All fields must be positive.
type Limits struct {
	Entries          int
	Time             time.Duration
	Message          int
	MessageAnonymous int
	FilterTerms      int
	FilterDepth      int
	Sorted           int // entries that a sorted search may have to sort
	Operations       int
	Idle             time.Duration
	Unbound          time.Duration
	Write            time.Duration
}

// DefaultLimits are for tests; a role has its own, from its configuration.
var DefaultLimits = Limits{Entries: 10000, Time: time.Minute, Message: 4 << 20, MessageAnonymous: 64 << 10,
	FilterTerms: 1024, FilterDepth: 32, Sorted: 100_000, Operations: 64, Idle: 30 * time.Minute, Unbound: time.Minute, Write: 30 * time.Second}

// Options of a Server.
type Options struct {
	Store     *dirstore.Store
	Passwords *Passwords
	// RootDN has RootPassword instead of an entry's password; an empty password: nobody can bind so.
	RootDN       string
	RootPassword string // in clear, or a hash with its scheme
	// Rights says what an identity may do, found by its entry; entry is nil for the root DN. norm is the
	// normal form of its name, and nil for anonymous where Watched is set.
	Rights func(r *dirstore.Reader, entry *dirstore.Found, norm []byte) Rights
	// Watched, if set, moves when rights may have changed: they are asked for anew then, on connections that are open too.
	Watched func() uint64
	TLS     *tls.Config // nil: no StartTLS and no TLS listener
	// Refer, if set, is asked for each update and names the servers that take it, if this one takes none: it is a
	// shadow.
	Refer func() []string
	// Lacks, if set, tells what this server lacks of the directory, and who has it; nil for nothing.
	Lacks func() (*dirstore.Agreement, []string)
	// Gate, if set, is asked for each update before it is made and, with made set, before it is acknowledged. An error
	// refuses it. It may wait.
	Gate func(ctx context.Context, made bool) error
	// Extensions are further extended operations by their OID; they answer at once.
	Extensions map[string]Extension
	// SASL says whom SASL names mean.
	SASL SASL
	// Policy is the service's own password policy, nil for none; PolicyDN names the entry that goes before it.
	Policy   *Policy
	PolicyDN string
	// Unruled says, by the normal form of its name, whose passwords no policy rules: a server that is locked out, because
	// somebody guessed at its name, would take the service down. nil: nobody's.
	Unruled func(norm []byte) bool
	// Report tells the directory what was seen of failed logins, every ReportInterval and at once for a lock; nil:
	// into the store. A shadow tells its master.
	Report         func(context.Context, []StateChange) error
	ReportInterval time.Duration
	// Forward, on a shadow, lets the master know a password that was right and is stored in an older form. It must
	// not block.
	Forward func(dn string, password []byte)
	// Ready, if set, is asked until it returns nil once; before that, binds, searches and comparisons
	// are answered "unavailable": a part of a directory must not be taken for the whole.
	Ready   func() error
	Limits  Limits
	Vendor  string // vendorVersion of the root DSE
	Clock   clock.Clock
	Log     *slog.Logger
	Metrics prometheus.Registerer // may be nil
}

// Extension carries out an extended operation of an identity by its normal name. The error should be an *ldapwire.Error.
type Extension func(norm []byte, rights *Rights, value []byte) ([]byte, error)

// Listening says how a listener treats its connections.
type Listening struct {
	Name       string
	TLS        bool // TLS from the first byte
	AllowPlain bool // passwords may be sent without TLS
	Local      bool // a Unix socket: the kernel says who is at the other end
}

// Server serves LDAP on any number of listeners.
type Server struct {
	opt       Options
	limits    atomic.Pointer[Limits]
	rootNorm  []byte
	suffix    []byte // normal form
	rootBase  []ldapwire.Attribute
	rootEntry atomic.Pointer[dirstore.Found]
	subschema *dirstore.Found
	metrics   *metrics
	sorts     chan struct{} // holds one for each sorted search under way
	work      sync.Pool
	buffers   sync.Pool

	transactions atomic.Uint64 // identifiers given

	ready    atomic.Bool
	now      atomic.Int64 // coarse time since boot in ns, kept by the sweeper
	password atomic.Pointer[rootSecret]
	nobody   atomic.Pointer[identity] // anonymous, where Watched is set

	failures    *tracker
	fakeKey     []byte
	upgrading   chan struct{} // holds a token for each password that is being brought to today's form
	modernizing sync.Map      // the names of their entries
	background  sync.WaitGroup

	mu        sync.Mutex
	listeners map[net.Listener]bool
	sessions  map[*session]bool
	draining  bool
	gone      chan struct{} // closed when draining and no session is left
	sweeping  chan struct{} // closed to end the sweeper
	swept     chan struct{}
}

// New makes a server. Close frees it.
func New(opt Options) (*Server, error) {
	s := &Server{opt: opt, sorts: make(chan struct{}, maxSorts), listeners: map[net.Listener]bool{}, sessions: map[*session]bool{},
		gone: make(chan struct{}), sweeping: make(chan struct{}), swept: make(chan struct{})}
	s.SetLimits(opt.Limits)
	s.SetRootPassword(opt.RootPassword)
	s.fakeKey, s.upgrading = newFakeKey(), make(chan struct{}, upgradesAtOnce)
	var err error
	if s.rootNorm, err = opt.Store.CheckDN([]byte(opt.RootDN)); err != nil {
		return nil, fmt.Errorf("root DN %q: %w", opt.RootDN, err)
	}
	if s.suffix, err = opt.Store.CheckDN([]byte(opt.Store.Suffix())); err != nil {
		return nil, err
	}
	if err := s.makeVirtualEntries(); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(opt.Metrics)
	s.work.New = func() any { return &work{} }
	s.buffers.New = func() any { b := make([]byte, readBuffer); return &b }
	s.now.Store(int64(opt.Clock.Boot()))
	if opt.Report == nil {
		opt.Report = Report(opt.Store, opt.RootDN)
	}
	s.failures = newTracker(opt.Clock, opt.ReportInterval, opt.Report, func(err error) {
		opt.Log.Warn("what was seen of failed logins could not be told yet", "error", err)
	})
	go s.sweep()
	return s, nil
}

// upgradesAtOnce bounds the passwords that are brought to today's form at once; more wait for their next bind.
const upgradesAtOnce = 4

// SetLimits changes the limits for what comes from now on.
func (s *Server) SetLimits(l Limits) { s.limits.Store(&l) }

// SetRootPassword changes the password of the root DN.
func (s *Server) SetRootPassword(p string) { s.password.Store(newRootSecret(p)) }

// ErrServerClosed is returned by Serve after Shutdown or Close.
var ErrServerClosed = errors.New("ldapsession: server closed")

// Serve accepts connections until the server is shut down.
func (s *Server) Serve(l net.Listener, how Listening) error {
	if how.TLS && s.opt.TLS == nil {
		return fmt.Errorf("listener %s: TLS without a certificate", how.Name)
	}
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		l.Close()
		return ErrServerClosed
	}
	s.listeners[l] = true
	s.mu.Unlock()
	for {
		c, err := l.Accept()
		if err != nil {
			s.mu.Lock()
			draining := s.draining
			delete(s.listeners, l)
			s.mu.Unlock()
			if draining {
				return ErrServerClosed
			}
			return fmt.Errorf("listener %s: %w", how.Name, err)
		}
		s.start(c, how)
	}
}

func (s *Server) start(c net.Conn, how Listening) {
	x := newSession(s, c, how)
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		c.Close()
		return
	}
	s.sessions[x] = true
	s.mu.Unlock()
	s.metrics.connections.WithLabelValues(how.Name).Inc()
	s.metrics.open.Inc()
	go func() {
		x.serve()
		s.metrics.open.Dec()
		s.mu.Lock()
		delete(s.sessions, x)
		if s.draining && len(s.sessions) == 0 {
			close(s.gone)
		}
		s.mu.Unlock()
	}()
}

// Shutdown stops accepting, lets operations finish, and takes leave of every client with a notice of
// disconnection. When ctx ends first, what is left is cut off and the error of ctx returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.beginDrain(func(x *session) { x.drain() })
	select {
	case <-s.gone:
		return nil
	case <-ctx.Done():
		s.cutAll()
		<-s.gone
		return ctx.Err()
	}
}

// Close cuts off everything at once.
func (s *Server) Close() error {
	s.beginDrain(func(*session) {})
	s.cutAll()
	<-s.gone
	s.mu.Lock()
	first := false
	select {
	case <-s.sweeping:
	default:
		close(s.sweeping)
		first = true
	}
	s.mu.Unlock()
	<-s.swept
	if first {
		s.background.Wait()
		s.failures.close()
	}
	return nil
}

func (s *Server) beginDrain(each func(*session)) {
	s.mu.Lock()
	first := !s.draining
	s.draining = true
	for l := range s.listeners {
		l.Close()
	}
	var all []*session
	for x := range s.sessions {
		all = append(all, x)
	}
	if first && len(all) == 0 {
		close(s.gone)
	}
	s.mu.Unlock()
	for _, x := range all {
		each(x)
	}
}

func (s *Server) cutAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for x := range s.sessions {
		x.cut("server stops")
	}
}

// Connections is the number of open connections.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// sweepInterval is how exact the limits on time are, and how often they are looked at.
const sweepInterval = time.Second

// sweep cuts off connections that are beyond their time. One goroutine looks at all of them, so that a
// request costs no timer.
func (s *Server) sweep() {
	defer close(s.swept)
	t := s.opt.Clock.NewTimer(sweepInterval)
	defer t.Stop()
	for {
		select {
		case <-s.sweeping:
			return
		case <-t.C():
		}
		now := s.opt.Clock.Boot()
		s.now.Store(int64(now))
		lim := s.limits.Load()
		s.mu.Lock()
		for x := range s.sessions {
			x.checkTime(now, lim)
		}
		s.mu.Unlock()
		t.Reset(sweepInterval)
	}
}

// unready returns why this server does not answer yet, nil if it does.
func (s *Server) unready() error {
	if s.ready.Load() {
		return nil
	}
	if s.opt.Ready != nil {
		if err := s.opt.Ready(); err != nil {
			return &ldapwire.Error{Code: ldapwire.Unavailable, Message: err.Error()}
		}
	}
	s.ready.Store(true)
	return nil
}

func (s *Server) wireLimits() ldapwire.Limits {
	l := s.limits.Load()
	return ldapwire.Limits{FilterTerms: l.FilterTerms, FilterDepth: l.FilterDepth}
}
