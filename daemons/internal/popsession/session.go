package popsession

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"shoal/daemons/internal/acceptor"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
)

// state is where a session stands: RFC 1939 §3.
type state uint8

const (
	stateAuthorization state = 1 << iota
	stateTransaction
	stateOver

	stateAny = stateAuthorization | stateTransaction
)

// session is one connection. Only its goroutine touches it.
type session struct {
	srv    *Server
	conn   *acceptor.Conn
	stream net.Conn // what is read and written
	r      *bufio.Reader
	w      *bufio.Writer
	remote string

	state    state
	started  time.Duration // by Clock.Boot
	name     string        // given by USER
	commands int           // before the login
	bad      int           // in a row
	fails    int           // refused logins
	utf8     bool          // the client takes UTF-8 in headers
	revoked  atomic.Bool   // the login is worth nothing any more

	user    *dirclient.Account
	drop    *maildrop
	unwatch func() // ends the watch on the login
}

func newSession(srv *Server, c *acceptor.Conn) *session {
	return &session{srv: srv, conn: c, remote: c.Remote(), state: stateAuthorization, started: srv.clock.Boot()}
}

// errOver ends a session without a further answer.
var errOver = errors.New("session over")

// misuse is an answer of -ERR to a client that does not know the protocol. Too many in a row end the session.
type misuse string

func (m misuse) Error() string { return string(m) }

// failure is an answer of -ERR. code is a response code of RFC 2449 §8 or RFC 3206, or empty.
type failure struct{ code, text string }

func (f *failure) Error() string { return f.text }

func fail(code, text string) error { return &failure{code, text} }

// Response codes.
const (
	codeAuth      = "AUTH"        // RFC 3206 §4: the credentials, or the account
	codeTemporary = "SYS/TEMP"    // RFC 3206 §4: try again later
	codePermanent = "SYS/PERM"    // RFC 3206 §4: somebody must mend it
	codeDelay     = "LOGIN-DELAY" // RFC 2449 §8.1.1
)

func (s *session) log() *slog.Logger {
	l := s.srv.log.With("session", s.conn.ID(), "remote", s.remote)
	if s.user != nil {
		l = l.With("user", s.user.Address)
	}
	return l
}

// run is the life of a session.
func (s *session) run() {
	stream, ok := s.conn.Stream()
	if !ok {
		return
	}
	s.use(stream)
	if !s.conn.Admit() {
		s.line("-ERR [SYS/TEMP] Too many connections, try again later")
		_ = s.w.Flush()
		return
	}
	s.line("+OK " + s.srv.opt.Server + " POP3 ready")
	err := s.serve()
	if s.unwatch != nil {
		s.unwatch()
	}
	if s.revoked.Load() {
		s.line("-ERR [AUTH] The account or its password has changed, please log in again")
	}
	if flushed := s.w.Flush(); err == nil {
		err = flushed
	}
	if s.isTLS() { // its close_notify; a client that is gone is not waited for
		_ = s.conn.AllowWrite(time.Now().Add(time.Second))
		_ = s.stream.Close()
	}
	s.ended(err)
}

// revoke ends the session when its command is done, at once if it waits. It may be called from any goroutine.
func (s *session) revoke(string) {
	s.revoked.Store(true)
	s.conn.Interrupt()
}

// use reads and writes c from now on.
func (s *session) use(c net.Conn) {
	s.stream = c
	s.r = bufio.NewReaderSize((*reader)(s), 2048)
	s.w = bufio.NewWriterSize((*writer)(s), 8192)
}

func (s *session) isTLS() bool {
	_, ok := s.stream.(*tls.Conn)
	return ok
}

// ended logs how a session ended.
func (s *session) ended(err error) {
	log := s.log()
	switch {
	case err == nil, errors.Is(err, errOver), errors.Is(err, io.EOF):
	case s.conn.Ending(), s.srv.Context().Err() != nil:
		err = errors.New("shutdown")
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.srv.m.timeouts.Inc()
		err = errors.New("timed out")
	}
	if s.user == nil {
		log.Debug("connection ended without a login", "error", err)
		return
	}
	log.Info("session ended", "event", "pop-session", "retrieved", s.drop.retrieved, "removed", s.drop.removed,
		"duration", s.srv.clock.Boot()-s.started, "error", err)
}

// reader and writer are the session's connection with its deadlines.
type reader session
type writer session

// Read waits for the client. What was answered so far goes out first: the client may be waiting for it.
// Commands that are there already are done before that (PIPELINING, RFC 2449 §6.6).
func (r *reader) Read(p []byte) (int, error) {
	if err := r.w.Flush(); err != nil {
		return 0, err
	}
	n, err := r.stream.Read(p)
	r.srv.m.received.Add(float64(n))
	return n, err
}

func (w *writer) Write(p []byte) (int, error) {
	if err := w.conn.AllowWrite(time.Now().Add(w.srv.limits().WriteTimeout)); err != nil {
		return 0, err
	}
	n, err := w.stream.Write(p)
	w.srv.m.sent.Add(float64(n))
	return n, err
}

// line answers with a line.
func (s *session) line(text string) {
	_, _ = s.w.WriteString(text) // an error stays in the writer and comes out at Flush
	_, _ = s.w.WriteString("\r\n")
}

func (s *session) ok(format string, args ...any) error {
	s.line("+OK " + fmt.Sprintf(format, args...))
	return nil
}

// serve reads and does commands until the session is over.
func (s *session) serve() error {
	for s.state != stateOver {
		line, err := s.readLine(int(s.srv.limits().LineLimit))
		var malformed misuse
		if err != nil && !errors.As(err, &malformed) {
			return err
		}
		if err := s.command(line, err); err != nil {
			return err
		}
		lim := s.srv.limits()
		switch {
		case s.bad >= lim.BadCommands:
			s.line("-ERR Too many bad commands")
			return errOver
		case s.fails >= lim.LoginFailures:
			s.line("-ERR [AUTH] Too many failed logins")
			return errOver
		case s.state == stateAuthorization && s.commands >= lim.PreLoginCommands:
			s.line("-ERR Too many commands before a login")
			return errOver
		}
	}
	return nil
}

// readLine reads a line without its end. The whole line must be there in time.
func (s *session) readLine(limit int) (string, error) {
	lim := s.srv.limits()
	wait := lim.IdleTimeout
	if s.state == stateAuthorization {
		wait = lim.LoginTimeout - (s.srv.clock.Boot() - s.started)
	}
	if on, err := s.conn.AllowRead(time.Now().Add(wait)); err != nil {
		return "", err
	} else if !on {
		return "", errOver
	}
	var line []byte
	tooLong := false
	for total := 0; ; {
		piece, err := s.r.ReadSlice('\n')
		total += len(piece)
		tooLong = tooLong || len(line)+len(piece) > limit+2
		if !tooLong {
			line = append(line, piece...)
		}
		switch {
		case err == nil:
			line = trimEnd(line)
			if tooLong || len(line) > limit {
				return "", misuse(fmt.Sprintf("The line is longer than %d bytes", limit))
			}
			for _, c := range line {
				if c == 0 || c == '\r' || c == '\n' {
					return "", misuse("The line has a NUL or a bare CR in it")
				}
			}
			return string(line), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", err
		case total > maxDiscard:
			s.line("-ERR Line too long")
			return "", errOver
		}
	}
}

// maxDiscard is how much of an overlong line is read to find its end.
const maxDiscard = 256 << 10

func trimEnd(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line
}

// command does one command. malformed is what is wrong with its line, if something is.
func (s *session) command(line string, malformed error) error {
	if s.state == stateAuthorization {
		s.commands++
	}
	keyword, rest, _ := strings.Cut(line, " ")
	cmd := commands[strings.ToUpper(keyword)]
	var err error
	name := "unknown"
	switch {
	case malformed != nil:
		err = malformed
	case cmd == nil:
		err = misuse("Unknown command")
	case cmd.states&s.state == 0:
		name = cmd.name
		err = misuse(cmd.name + " is not possible now")
	default:
		name = cmd.name
		ctx, cancel := context.WithTimeout(s.srv.Context(), s.srv.limits().CommandTimeout)
		err = cmd.do(s, ctx, rest)
		cancel()
	}
	var answer *failure
	var wrong misuse
	switch {
	case err == nil:
		s.bad = 0
		s.srv.m.commands.WithLabelValues(name, "ok").Inc()
		return nil
	case errors.As(err, &answer):
		s.bad = 0
		text := answer.text
		if answer.code != "" {
			text = "[" + answer.code + "] " + text
		}
		s.line("-ERR " + text)
	case errors.As(err, &wrong):
		s.bad++
		s.line("-ERR " + string(wrong))
	default: // the connection, or the end
		return err
	}
	s.srv.m.commands.WithLabelValues(name, "err").Inc()
	return nil
}

// storeFailure is the answer to an error of the store, which it logs.
func (s *session) storeFailure(what string, err error) error {
	s.log().Error(what, "error", err)
	for _, permanent := range []error{mailstore.ErrCorrupt, mailstore.ErrNewerFormat, mailstore.ErrReadOnly, mailstore.ErrWrongVolume} {
		if errors.Is(err, permanent) {
			return fail(codePermanent, "The mailbox is damaged or cannot be written; its keeper has been told")
		}
	}
	return fail(codeTemporary, "The mailbox is not available at the moment, try again later")
}
