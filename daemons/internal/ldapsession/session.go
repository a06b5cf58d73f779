package ldapsession

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// identity is who a connection is. It is replaced whole, never changed.
type identity struct {
	dn     string // "" for anonymous
	norm   []byte
	entry  uint64 // id of the entry; 0 for the root DN and for anonymous
	rights Rights
	// watched is Options.Watched from when rights were asked for.
	watched uint64
	root    bool
	// mustChange: nothing but a change of the own password is allowed, because somebody else set it.
	mustChange bool
}

var anonymous = &identity{}

// session is one connection.
type session struct {
	s    *Server
	how  Listening
	in   input
	out  output
	log  *slog.Logger
	conn net.Conn // as accepted; TLS lies above it
	tls  bool

	secure   *tls.Conn       // the connection inside TLS
	exchange *exchange       // a SASL bind under way
	reset    *dirstore.Write // the change of the own password that was asked for last

	// Of the reading goroutine.
	who     *identity
	txn     *transaction   // nil: none was started
	updates sync.WaitGroup // updates without an answer yet
	others  sync.WaitGroup // all operations that run beside the reading goroutine

	mu      sync.Mutex
	pending map[int32]*operation // those operations, by message id

	draining atomic.Bool
	cutOnce  sync.Once
	opened   time.Duration
	asked    atomic.Int64 // coarse time of the last request
	bound    atomic.Bool
}

// operation is one that runs beside the reading goroutine.
type operation struct {
	ctx       context.Context
	cancel    context.CancelCauseFunc
	abandoned atomic.Bool // no answer is sent
	answered  atomic.Bool // the last answer is on its way: the client may use the id again as soon as it has it
	endless   bool        // a persistent search: a bind does not wait for it
	update    bool        // cannot be abandoned
}

// work is what a connection needs while it is active.
type work struct {
	msg     ldapwire.Message
	bind    ldapwire.Bind
	search  ldapwire.Search
	compare ldapwire.Compare
	ext     ldapwire.Extended
	filter  *dirstore.Filter
	plan    dirstore.Search
	norm    []byte
	base    []byte // as given in the last search; norm is its normal form
	out     []byte // answers not sent yet
	reader  *dirstore.Reader
	ctl     controls
}

// flushAt is how many octets of answers are collected at most before they are sent.
const flushAt = 64 << 10

func newSession(s *Server, c net.Conn, how Listening) *session {
	x := &session{s: s, how: how, conn: c, who: anonymous, opened: s.opt.Clock.Boot()}
	x.asked.Store(s.now.Load())
	x.log = s.opt.Log
	x.out.init(c, &s.now)
	x.in.init(s, c)
	return x
}

func (x *session) attrs() slog.Attr {
	return slog.Group("client", "listener", x.how.Name, "remote", x.conn.RemoteAddr().String(), "dn", x.who.dn)
}

// serve is the life of the connection.
func (x *session) serve() {
	defer func() {
		if p := recover(); p != nil {
			x.log.Error("ldap session broken", x.attrs(), "panic", fmt.Sprint(p), "stack", stack())
			x.cut("broken")
		}
		x.cancelAll()
		x.others.Wait()
		x.in.drop()
		x.conn.Close()
	}()
	if x.how.TLS {
		if err := x.startTLS(); err != nil {
			x.log.Debug("TLS handshake failed", x.attrs(), "error", err)
			return
		}
	}
	for {
		err := x.in.more()
		if err == nil {
			err = x.batch()
		}
		if err == nil && !x.draining.Load() {
			continue
		}
		x.end(err)
		return
	}
}

// errUnbind ends a connection that its client closed as it should.
var errUnbind = errors.New("unbind")

// end takes leave. err is nil when the server drains.
func (x *session) end(err error) {
	draining := x.draining.Load()
	switch {
	case errors.Is(err, errUnbind):
		x.cancelAll()
	case draining:
		x.cancelEndless()
		x.others.Wait()
		x.notice(ldapwire.Unavailable, "the server stops")
	case errors.Is(err, io.EOF):
		// A client that closed its side may still want the answers to what it asked.
		x.cancelEndless()
		x.others.Wait()
	case err != nil && isProtocol(err):
		x.log.Info("ldap client disconnected: protocol error", x.attrs(), "error", err)
		x.s.metrics.protocolErrors.Inc()
		x.notice(ldapwire.ProtocolError, err.Error())
	default:
		x.log.Debug("ldap connection lost", x.attrs(), "error", err)
	}
}

func isProtocol(err error) bool {
	return errors.Is(err, ldapwire.ErrBER) || errors.Is(err, ldapwire.ErrNotLDAP) || errors.Is(err, ldapwire.ErrTooLarge) || errors.Is(err, errProtocol)
}

// errProtocol is a breach of the protocol after which nothing more is read.
var errProtocol = errors.New("protocol violated")

func (x *session) notice(code ldapwire.Code, text string) {
	_ = x.out.send(ldapwire.AppendNotice(nil, code, text)) // who does not hear it has gone
}

// batch carries out every whole request that has arrived, and sends the answers.
func (x *session) batch() error {
	x.asked.Store(x.s.now.Load())
	w := x.s.work.Get().(*work)
	err := x.requests(w)
	w.closeReader()
	if sendErr := x.flush(w); err == nil {
		err = sendErr
	}
	if cap(w.out) > 2*flushAt {
		w.out = nil
	}
	x.s.work.Put(w)
	x.in.release()
	return err
}

func (x *session) requests(w *work) error {
	for {
		lim := x.s.limits.Load()
		max := lim.Message
		if !x.bound.Load() {
			max = min(max, lim.MessageAnonymous)
		}
		frame, err := x.in.frame(max)
		if err != nil || frame == nil {
			return err
		}
		if err := x.handle(w, frame); err != nil {
			return err
		}
		if len(w.out) >= flushAt {
			w.closeReader()
			if err := x.flush(w); err != nil {
				return err
			}
		}
		if x.draining.Load() {
			return nil
		}
	}
}

func (x *session) flush(w *work) error {
	if len(w.out) == 0 {
		return nil
	}
	err := x.out.send(w.out)
	w.out = w.out[:0]
	return err
}

// read gives the read transaction of the batch. It sees every update that this connection sent.
func (x *session) read(w *work) (*dirstore.Reader, error) {
	if w.reader != nil {
		return w.reader, nil
	}
	r, err := x.s.opt.Store.Read()
	if err != nil {
		return nil, err
	}
	w.reader = r
	return r, nil
}

func (w *work) closeReader() {
	if w.reader != nil {
		w.reader.Close()
		w.reader = nil
	}
}

// pause ends what belongs to the batch before the reading goroutine waits for something.
func (x *session) pause(w *work) error {
	w.closeReader()
	return x.flush(w)
}

// settle waits for the updates sent before.
func (x *session) settle(w *work) error {
	x.mu.Lock()
	n := 0
	for _, op := range x.pending {
		if op.update {
			n++
		}
	}
	x.mu.Unlock()
	if n == 0 {
		return nil
	}
	if err := x.pause(w); err != nil {
		return err
	}
	x.updates.Wait()
	return nil
}

// handle carries out one request, or starts it. An error ends the connection.
func (x *session) handle(w *work, frame []byte) error {
	err := w.msg.Parse(frame, x.s.wireLimits())
	m := &w.msg
	if m.ID == 0 || err != nil && m.Op.Response() == 0 {
		if err == nil {
			err = fmt.Errorf("%w: message id 0 in a request", errProtocol)
		}
		if !isProtocol(err) {
			err = fmt.Errorf("%w: %w", errProtocol, err)
		}
		return err
	}
	if err == nil {
		err = w.ctl.parse(m, x.s.wireLimits())
	}
	if err == nil && (m.Op == ldapwire.OpBindRequest || m.Op == ldapwire.OpCompareRequest) {
		err = x.s.unready()
	}
	if err == nil {
		err = x.refresh(w)
	}
	if err == nil && w.ctl.proxied {
		own := x.who
		defer func() { x.who = own }()
		err = x.actFor(w)
	}
	if err != nil {
		x.fail(w, err)
		return nil
	}
	if m.Op != ldapwire.OpBindRequest {
		x.exchange = nil // RFC 4511 §4.2.1: only the next step may follow
	}
	if x.who.mustChange && x.restricted(w, m.Op) {
		return nil
	}
	switch m.Op {
	case ldapwire.OpSearchRequest:
		return x.search(w)
	case ldapwire.OpBindRequest:
		return x.bind(w)
	case ldapwire.OpUnbindRequest:
		return errUnbind
	case ldapwire.OpCompareRequest:
		return x.compare(w)
	case ldapwire.OpAddRequest, ldapwire.OpModifyRequest, ldapwire.OpDelRequest, ldapwire.OpModifyDNRequest:
		return x.update(w, frame)
	case ldapwire.OpAbandonRequest:
		return x.abandon(w)
	case ldapwire.OpExtendedRequest:
		return x.extended(w)
	}
	return fmt.Errorf("%w: unknown operation 0x%02x", errProtocol, byte(m.Op))
}

// result makes the answer to an error.
func result(err error) *ldapwire.Result {
	var e *ldapwire.Error
	switch {
	case err == nil:
		return &ldapwire.Result{}
	case errors.As(err, &e):
		return &ldapwire.Result{Code: e.Code, Message: e.Message, Matched: e.Matched, Referrals: e.Referrals}
	case errors.Is(err, ldapwire.ErrBER) || errors.Is(err, ldapwire.ErrTooLarge):
		return &ldapwire.Result{Code: ldapwire.ProtocolError, Message: err.Error()}
	case errors.Is(err, ErrBusy):
		return &ldapwire.Result{Code: ldapwire.Busy, Message: err.Error()}
	}
	return &ldapwire.Result{Code: ldapwire.Unavailable, Message: "see the server's log"}
}

// fail answers the current request with an error.
func (x *session) fail(w *work, err error) {
	r := result(err)
	if r.Code == ldapwire.Unavailable && x.s.ready.Load() {
		x.log.Error("ldap operation failed", x.attrs(), "operation", w.msg.Op.String(), "error", err)
	}
	x.answer(w, r)
}

// answer answers the current request.
func (x *session) answer(w *work, r *ldapwire.Result) {
	x.s.metrics.count(w.msg.Op, r.Code)
	if w.msg.Op == ldapwire.OpExtendedRequest {
		w.out = ldapwire.AppendExtended(w.out, w.msg.ID, r, "", nil, nil)
		return
	}
	w.out = ldapwire.AppendResponse(w.out, w.msg.ID, w.msg.Op.Response(), r)
}

// begin registers an operation that goes on beside the reading goroutine. It waits while too many are
// under way; the error tells that the client uses an id twice, or that the connection ends.
func (x *session) begin(w *work, update, endless bool) (*operation, error) {
	id := w.msg.ID
	ctx, cancel := context.WithCancelCause(context.Background())
	op := &operation{ctx: ctx, cancel: cancel, update: update, endless: endless}
	x.mu.Lock()
	n, last := len(x.pending), x.pending[id]
	x.mu.Unlock()
	if last != nil && last.answered.Load() {
		<-last.ctx.Done() // what is left of it takes no time
		last = nil
	}
	if last != nil {
		cancel(nil)
		return nil, fmt.Errorf("%w: message id %d is in use", errProtocol, id)
	}
	if n >= x.s.limits.Load().Operations {
		if err := x.pause(w); err != nil {
			cancel(nil)
			return nil, err
		}
		if !x.endlessOnly() {
			x.waitOne()
		}
	}
	x.mu.Lock()
	if x.pending == nil {
		x.pending = map[int32]*operation{}
	}
	x.pending[id] = op
	x.mu.Unlock()
	x.others.Add(1)
	if update {
		x.updates.Add(1)
	}
	return op, nil
}

// waitOne waits until some operation has ended. Endless ones do not count: those are bounded when they
// begin.
func (x *session) waitOne() {
	x.mu.Lock()
	var first *operation
	for _, op := range x.pending {
		if !op.endless {
			first = op
			break
		}
	}
	x.mu.Unlock()
	if first != nil {
		<-first.ctx.Done()
	}
}

func (x *session) endlessOnly() bool {
	n := x.endless()
	x.mu.Lock()
	defer x.mu.Unlock()
	return n == len(x.pending)
}

// endless is the number of synchronizations under way.
func (x *session) endless() (n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, op := range x.pending {
		if op.endless {
			n++
		}
	}
	return n
}

// finish is the end of an operation that begin registered.
func (x *session) finish(id int32, op *operation) {
	x.mu.Lock()
	delete(x.pending, id)
	if len(x.pending) == 0 {
		x.pending = nil
	}
	x.mu.Unlock()
	op.cancel(nil)
	if op.update {
		x.updates.Done()
	}
	x.others.Done()
}

var errAbandoned = errors.New("abandoned")

func (x *session) cancelAll() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, op := range x.pending {
		if !op.update {
			op.abandoned.Store(true)
			op.cancel(errAbandoned)
		}
	}
}

func (x *session) cancelEndless() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, op := range x.pending {
		if op.endless {
			op.abandoned.Store(true)
			op.cancel(errAbandoned)
		}
	}
}

// quiet waits until nothing is under way: before a bind.
func (x *session) quiet(w *work) error {
	if err := x.pause(w); err != nil {
		return err
	}
	x.cancelEndless()
	x.others.Wait()
	return nil
}

// drain makes the reading goroutine end the connection when it has answered what it has read.
func (x *session) drain() {
	x.draining.Store(true)
	_ = x.conn.SetReadDeadline(time.Unix(1, 0)) // wakes it; a connection that is gone has woken already
}

// cut ends the connection at once, from any goroutine.
func (x *session) cut(why string) {
	x.cutOnce.Do(func() {
		x.log.Debug("ldap connection cut off", "listener", x.how.Name, "remote", x.conn.RemoteAddr().String(), "reason", why)
		x.out.fail(errCut)
		x.cancelAll()
		x.conn.Close()
	})
}

// checkTime cuts the connection off if it is beyond a limit.
func (x *session) checkTime(now time.Duration, lim *Limits) {
	since := x.out.since.Load()
	switch {
	case since != 0 && now-time.Duration(since) > lim.Write:
		x.s.metrics.cut.WithLabelValues("slow").Inc()
		x.cut("its client takes no answers")
	case !x.bound.Load() && now-x.opened > lim.Unbound:
		x.s.metrics.cut.WithLabelValues("unbound").Inc()
		x.cut("no bind in time")
	case now-time.Duration(x.asked.Load()) > lim.Idle:
		x.mu.Lock()
		busy := len(x.pending) > 0
		x.mu.Unlock()
		if !busy {
			x.s.metrics.cut.WithLabelValues("idle").Inc()
			x.cut("idle")
		}
	}
}

// startTLS makes the connection a TLS connection. The sweeper bounds the handshake, which happens
// before a bind.
func (x *session) startTLS() error {
	c := tls.Server(x.conn, x.s.opt.TLS)
	if err := c.Handshake(); err != nil {
		return err
	}
	x.tls, x.secure = true, c
	x.out.swap(c)
	x.in.conn, x.in.raw = c, nil
	return nil
}
