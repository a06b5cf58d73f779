package imapsession

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
)

// What can happen to a session. The bits lie in session.events; eventRunning says that a goroutine
// has the session, and only that goroutine touches the fields that are not atomic.
const (
	eventRunning  = 1 << iota
	eventInput    // the connection is readable
	eventPush     // the selected mailbox may have changed
	eventDeadline // the sweeper found the deadline passed
	eventShutdown // the server is going down
	eventKill     // end without a word
	eventRevoked  // the login is worth nothing any more
	eventNotify   // the account or a mailbox that NOTIFY names may have changed
)

// state is where a session stands (RFC 9051 §3).
type state uint8

const (
	stateNew      state = 1 << iota // not authenticated
	stateAuth                       // authenticated
	stateSelected                   // a mailbox is selected
	stateLogout                     // over

	stateAny    = stateNew | stateAuth | stateSelected
	stateAuthed = stateAuth | stateSelected
)

// session is one connection.
//
// Its life is a sequence of runs: something happens (input, a change in the mailbox, a time-out), signal
// hands it to a worker, the worker does all there is to do, parks it and lets go of it. A parked
// session is this struct and its connection; it has no goroutine and no buffers.
type session struct {
	srv      *Server
	events   atomic.Uint32
	deadline atomic.Int64 // by Clock.Boot, in nanoseconds, while parked
	pushing  atomic.Bool  // changes are to be told at once: the session idles, or NOTIFY wants it

	t      transport
	dec    imapwire.Decoder
	enc    imapwire.Encoder
	armed  bool // the poller (or the waiting goroutine) will report input
	state  state
	idling bool // between IDLE and DONE

	rev2     bool // ENABLE IMAP4rev2
	utf8     bool // ENABLE UTF8=ACCEPT
	condstor bool // a CONDSTORE enabling command was given
	qresync  bool // ENABLE QRESYNC
	uidOnly  bool // ENABLE UIDONLY
	noted    bool // counted in the server's tables by address

	bad      uint16 // bad commands in a row
	fails    uint16 // refused logins
	commands uint32 // before the login

	started time.Duration // by Clock.Boot
	id      uint64
	remote  string // client's address without port
	idleTag string

	user *dirclient.Account // who has logged in
	acc  *mailstore.Account
	box  *selected // state selected: the mailbox

	news *noteNews // ENABLE METADATA

	unwatch func() // ends the watch on the login
	note    *notify
}

// reader and writer are the session's connection as decoder and encoder see it.
type reader session
type writer session

// Read waits for more of a command that has begun. What was answered so far goes out first: the
// client may be waiting for it.
func (r *reader) Read(p []byte) (int, error) {
	s := (*session)(r)
	if err := s.enc.Flush(); err != nil {
		return 0, err
	}
	wait := s.srv.limits().ReadTimeout
	if s.state == stateNew {
		wait = min(wait, s.started+s.srv.limits().LoginTimeout-s.srv.clock.Boot())
	}
	n, err := s.t.read(p, wait)
	s.srv.m.received.Add(float64(n))
	return n, err
}

func (w *writer) Write(p []byte) (int, error) {
	s := (*session)(w)
	n, err := s.t.write(p, s.srv.limits().WriteTimeout)
	s.srv.m.sent.Add(float64(n))
	return n, err
}

func newSession(srv *Server, id uint64, remote string) *session {
	s := &session{srv: srv, id: id, remote: remote, state: stateNew, started: srv.clock.Boot()}
	s.dec = *imapwire.NewDecoder((*reader)(s), imapwire.Limits{}, s.continueLiteral)
	s.dec.SetLimits(&srv.limits().fresh)
	s.enc = *imapwire.NewEncoder((*writer)(s))
	s.deadline.Store(int64(s.started + srv.limits().LoginTimeout))
	return s
}

// continueLiteral asks for a literal that the client has announced.
func (s *session) continueLiteral() error {
	s.enc.Raw("+ OK\r\n")
	return s.enc.Flush()
}

func (s *session) log() *slog.Logger {
	l := s.srv.log.With("session", s.id, "remote", s.remote)
	if s.user != nil {
		l = l.With("user", s.user.Address)
	}
	return l
}

// signal says that something happened. It may be called from any goroutine and does not wait.
func (s *session) signal(event uint32) {
	if s.events.Or(event|eventRunning)&eventRunning == 0 {
		s.srv.workers.run(s)
	}
}

// run does all there is to do and parks the session, or ends it.
func (s *session) run() {
	alive := false
	defer func() {
		if p := recover(); p != nil {
			s.srv.m.panics.Inc()
			s.log().Error("session ended by a bug", "panic", p, "stack", string(debug.Stack()))
			alive = false
		}
		if !alive {
			s.end()
		}
	}()
	for {
		events := s.events.And(eventRunning)
		if alive = s.react(events); !alive {
			return
		}
		if err := s.enc.Release(); err != nil {
			alive = false
			return
		}
		s.dec.Release()
		s.t.rest()
		if !s.armed {
			if err := s.t.park(s.srv.poller, s); err != nil {
				s.log().Error("session cannot wait for input", "error", err)
				alive = false
				return
			}
			s.armed = true
		}
		if s.events.CompareAndSwap(eventRunning, 0) {
			return // from here on another goroutine may have the session
		}
	}
}

// react answers what has happened. It returns false when the session is over.
func (s *session) react(events uint32) bool {
	switch {
	case events&eventKill != 0:
		return false
	case events&eventShutdown != 0:
		s.bye("Server is shutting down, please reconnect")
		return false
	case events&eventRevoked != 0:
		s.bye(revokedText)
		return false
	}
	if events&eventInput != 0 {
		s.armed = false
		if !s.input() {
			return false
		}
		s.touch()
	} else if events&eventDeadline != 0 && int64(s.srv.clock.Boot()) >= s.deadline.Load() {
		s.srv.m.timeouts.Inc()
		if s.state == stateNew {
			s.bye("No login in time")
		} else {
			s.bye("No command for too long, goodbye")
		}
		return false
	}
	if events&eventPush != 0 && s.following() {
		if err := s.pushChanges(); err != nil {
			return s.goOn(err)
		}
	}
	if events&eventNotify != 0 {
		if err := s.pushNotes(); err != nil {
			return s.goOn(err)
		}
	}
	return true
}

// touch sets the time at which the session is given up if nothing happens until then.
func (s *session) touch() {
	if s.state != stateNew {
		s.deadline.Store(int64(s.srv.clock.Boot() + s.srv.limits().IdleTimeout))
	}
}

// input serves commands until there is no more input. It returns false when the session is over.
func (s *session) input() bool {
	drained := false
	for {
		for s.dec.HasLine() {
			if !s.serve() || s.over() {
				return false
			}
		}
		if s.dec.Buffered() == 0 && drained && !s.t.layered() { // TLS or compression may have begun, with input inside it
			return true
		}
		asked := 0
		n, err := s.dec.Fill(func(p []byte) (int, error) {
			asked = len(p)
			return s.t.readNow(p, s.srv.limits().WriteTimeout)
		})
		s.srv.m.received.Add(float64(n))
		switch {
		case n > 0:
			drained = n < asked
			if drained && !s.t.layered() && !s.dec.HasLine() && !s.serve() {
				return false // the rest of the line is waited for
			}
		case err == errWouldBlock && s.dec.Buffered() == 0:
			return true
		case err == errWouldBlock || errors.Is(err, imapwire.ErrLineTooLong):
			if !s.serve() {
				return false
			}
		default:
			return s.goOn(&imapwire.Fatal{Text: "connection lost", Err: err})
		}
	}
}

// over reports whether a pipelined command must not be begun any more.
func (s *session) over() bool {
	events := s.events.Load()
	if events&eventKill != 0 {
		return true
	}
	if events&eventShutdown != 0 {
		s.bye("Server is shutting down, please reconnect")
		return true
	}
	if events&eventRevoked != 0 {
		s.bye(revokedText)
		return true
	}
	return false
}

// revokedText is the farewell of a session whose login has been taken back.
const revokedText = "The account or its password has changed, please log in again"

// revoke ends the session with the next thing that it does, at once if it waits. It may be called from any goroutine.
func (s *session) revoke(string) {
	s.signal(eventRevoked)
}

// serve takes one command, or what follows IDLE, and answers it.
func (s *session) serve() bool {
	var err error
	if s.idling {
		err = s.endIdle()
	} else {
		err = s.serveCommand()
	}
	s.dec.Release()
	return s.goOn(err)
}

// errOver ends a session whose last words are said.
var errOver = errors.New("session is over")

// goOn decides whether a session lives after err. It logs what only it sees.
func (s *session) goOn(err error) bool {
	if err == nil {
		return s.state != stateLogout
	}
	var lost *imapwire.Fatal
	switch {
	case errors.Is(err, errOver):
	case errors.As(err, &lost) && lost.Err == nil:
		s.bye(lost.Text)
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.srv.m.timeouts.Inc()
		s.bye("Command was not completed in time")
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), isReset(err):
		s.log().Debug("connection lost", "error", err)
	default:
		s.log().Info("session ended", "error", err)
	}
	return false
}

// bye says goodbye and flushes.
func (s *session) bye(text string) {
	s.enc.Raw("* BYE ").Raw(text).CRLF()
	_ = s.enc.Flush()
}

// end releases all that the session holds.
func (s *session) end() {
	s.state = stateLogout
	if s.unwatch != nil {
		s.unwatch()
	}
	_ = s.enc.Release()
	s.note.close()
	s.note = nil
	s.stopIdling()
	s.closeMailbox()
	s.news.close()
	s.srv.release(s)
	s.t.close(s.srv.poller)
	s.srv.forget(s)
	s.dec.Release()
}

// context returns the context of one command: it ends with the server and after CommandTimeout.
func (s *session) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.srv.ctx, s.srv.limits().CommandTimeout)
}
