package sievesession

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"shoal/daemons/internal/acceptor"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sieve"
)

// state is where a session stands: RFC 5804 §1.
type state uint8

const (
	stateLogin state = 1 << iota
	stateUser
	stateOver

	stateAny = stateLogin | stateUser
)

// session is one connection. Only its goroutine touches it.
type session struct {
	srv    *Server
	conn   *acceptor.Conn
	stream net.Conn // what is read and written
	r      *bufio.Reader
	w      *bufio.Writer

	state    state
	started  time.Duration // by Clock.Boot
	commands int           // before the login
	bad      int           // in a row
	fails    int           // refused logins

	user    *dirclient.Account
	account *mailstore.Account
	unwatch func()      // ends the watch on the login
	revoked atomic.Bool // the login is worth nothing any more
}

func newSession(srv *Server, c *acceptor.Conn) *session {
	return &session{srv: srv, conn: c, state: stateLogin, started: srv.clock.Boot()}
}

// refusal is an answer of NO. code is a response code of RFC 5804 §1.3, or empty.
type refusal struct{ code, text string }

func (f *refusal) Error() string { return f.text }

func no(code, text string) error { return &refusal{code, text} }

// Response codes.
const (
	codeActive     = "ACTIVE"
	codeExists     = "ALREADYEXISTS"
	codeEncrypt    = "ENCRYPT-NEEDED"
	codeNone       = "NONEXISTENT"
	codeMaxScripts = "QUOTA/MAXSCRIPTS"
	codeMaxSize    = "QUOTA/MAXSIZE"
	codeQuota      = "QUOTA"
	codeLater      = "TRYLATER"
	codeWarnings   = "WARNINGS"
)

func (s *session) log() *slog.Logger {
	l := s.srv.log.With("session", s.conn.ID(), "remote", s.conn.Remote())
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
		s.answer("BYE", codeLater, "Too many connections, try again later")
		_ = s.w.Flush()
		return
	}
	s.capabilities()
	s.answer("OK", "", "Shoal ManageSieve ready")
	err := s.serve()
	s.endWatch()
	if s.revoked.Load() {
		s.answer("BYE", "", "The account or its password has changed, please log in again")
	} else if s.conn.Ending() {
		s.answer("BYE", codeLater, "The server is going down")
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

func (s *session) endWatch() {
	if s.unwatch != nil {
		s.unwatch()
		s.unwatch = nil
	}
}

// use reads and writes c from now on.
func (s *session) use(c net.Conn) {
	s.stream = c
	s.r = bufio.NewReaderSize((*reader)(s), 2048)
	s.w = bufio.NewWriterSize((*writer)(s), 4096)
}

func (s *session) isTLS() bool {
	_, ok := s.stream.(*tls.Conn)
	return ok
}

func (s *session) ended(err error) {
	switch {
	case err == nil, errors.Is(err, errOver), errors.Is(err, io.EOF):
		err = nil
	case s.conn.Ending(), s.srv.Context().Err() != nil:
		err = errors.New("shutdown")
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errors.New("timed out")
	}
	s.log().Debug("session ended", "duration", s.srv.clock.Boot()-s.started, "error", err)
}

// reader and writer are the session's connection with its deadlines.
type reader session
type writer session

// Read waits for the client. What was answered so far goes out first.
func (r *reader) Read(p []byte) (int, error) {
	if err := r.w.Flush(); err != nil {
		return 0, err
	}
	return r.stream.Read(p)
}

func (w *writer) Write(p []byte) (int, error) {
	if err := w.conn.AllowWrite(time.Now().Add(w.srv.limits().WriteTimeout)); err != nil {
		return 0, err
	}
	return w.stream.Write(p)
}

// line writes a response line of strings; an error stays in the writer and comes out at Flush.
func (s *session) line(words ...string) {
	var b []byte
	for i, w := range words {
		if i > 0 {
			b = append(b, ' ')
		}
		b = appendString(b, w)
	}
	_, _ = s.w.Write(append(b, '\r', '\n'))
}

// answer ends a response.
func (s *session) answer(word, code, text string) {
	b := []byte(word)
	if code != "" {
		b = append(append(append(b, " ("...), code...), ')')
	}
	if text != "" {
		b = appendString(append(b, ' '), text)
	}
	_, _ = s.w.Write(append(b, '\r', '\n'))
}

// await allows the client its time for the next command, or what belongs to one.
func (s *session) await() error {
	lim := s.srv.limits()
	wait := lim.IdleTimeout
	if s.state == stateLogin {
		wait = lim.LoginTimeout - (s.srv.clock.Boot() - s.started)
	}
	if on, err := s.conn.AllowRead(time.Now().Add(wait)); err != nil {
		return err
	} else if !on {
		return errOver
	}
	return nil
}

// literal is the largest literal that is taken now.
func (s *session) literal() int64 {
	if s.state == stateLogin {
		return 16 << 10
	}
	return int64(s.srv.limits().ScriptSize)
}

// serve reads and does commands until the session is over.
func (s *session) serve() error {
	for s.state != stateOver {
		if err := s.await(); err != nil {
			return err
		}
		c, err := readCommand(s.r, s.literal())
		var malformed badSyntax
		if err != nil && !errors.As(err, &malformed) {
			return err
		}
		if err := s.command(&c, err); err != nil {
			return err
		}
		lim := s.srv.limits()
		switch {
		case s.bad >= lim.BadCommands:
			s.answer("BYE", "", "Too many bad commands")
			return errOver
		case s.fails >= lim.LoginFailures:
			s.answer("BYE", "", "Too many failed logins")
			return errOver
		case s.state == stateLogin && s.commands >= lim.PreLoginCommands:
			s.answer("BYE", "", "Too many commands before a login")
			return errOver
		}
	}
	return nil
}

// commands, by name: where each may be used, and how many arguments it takes.
var commands map[string]struct {
	states   state
	min, max int
	do       func(*session, context.Context, []string) error
}

func init() { // not a literal: the commands refer to the table
	commands = map[string]struct {
		states   state
		min, max int
		do       func(*session, context.Context, []string) error
	}{
		"CAPABILITY":     {stateAny, 0, 0, cmdCapability},
		"NOOP":           {stateAny, 0, 1, cmdNoop},
		"LOGOUT":         {stateAny, 0, 0, cmdLogout},
		"STARTTLS":       {stateLogin, 0, 0, cmdStartTLS},
		"AUTHENTICATE":   {stateLogin, 1, 2, cmdAuthenticate},
		"UNAUTHENTICATE": {stateUser, 0, 0, cmdUnauthenticate},
		"HAVESPACE":      {stateUser, 2, 2, cmdHaveSpace},
		"PUTSCRIPT":      {stateUser, 2, 2, cmdPutScript},
		"CHECKSCRIPT":    {stateUser, 1, 1, cmdCheckScript},
		"LISTSCRIPTS":    {stateUser, 0, 0, cmdListScripts},
		"SETACTIVE":      {stateUser, 1, 1, cmdSetActive},
		"GETSCRIPT":      {stateUser, 1, 1, cmdGetScript},
		"DELETESCRIPT":   {stateUser, 1, 1, cmdDeleteScript},
		"RENAMESCRIPT":   {stateUser, 2, 2, cmdRenameScript},
	}
}

// command does one command. malformed is what is wrong with it, if something is.
func (s *session) command(c *command, malformed error) error {
	if s.state == stateLogin {
		s.commands++
	}
	cmd, known := commands[c.name]
	name, err := "unknown", malformed
	switch {
	case malformed != nil:
	case !known:
		err = badSyntax("Unknown command")
	case cmd.states&s.state == 0 && s.state == stateLogin:
		name, err = c.name, no("", "Log in first")
	case cmd.states&s.state == 0:
		name, err = c.name, no("", c.name+" is not possible after the login")
	case len(c.args) < cmd.min || len(c.args) > cmd.max:
		name, err = c.name, badSyntax(c.name+" has too few arguments or too many")
	default:
		name = c.name
		ctx, cancel := context.WithTimeout(s.srv.Context(), s.srv.limits().CommandTimeout)
		err = cmd.do(s, ctx, c.args)
		cancel()
	}
	var refused *refusal
	var wrong badSyntax
	switch {
	case err == nil:
		s.bad = 0
		s.srv.m.commands.WithLabelValues(name, "ok").Inc()
		return nil
	case errors.As(err, &refused):
		s.bad = 0
		s.answer("NO", refused.code, refused.text)
	case errors.As(err, &wrong):
		s.bad++
		s.answer("NO", "", string(wrong))
	default: // the connection, or the end
		return err
	}
	s.srv.m.commands.WithLabelValues(name, "no").Inc()
	return nil
}

// capabilities lists what the server can do now (RFC 5804 §1.7).
func (s *session) capabilities() {
	s.line("IMPLEMENTATION", "Shoal")
	s.line("VERSION", "1.0")
	if s.state == stateLogin {
		s.line("SASL", strings.Join(s.srv.sasl.Names(s.saslConn()), " "))
		if s.srv.HasTLS() && !s.isTLS() {
			s.line("STARTTLS")
		}
	} else {
		s.line("OWNER", s.user.Address)
	}
	s.line("SIEVE", extensions(s.srv.opt.Without))
	s.line("NOTIFY", notifyMethods())
	s.line("MAXREDIRECTS", strconv.Itoa(s.srv.opt.Redirects))
	s.line("LANGUAGE", "en")
	s.line("UNAUTHENTICATE")
}

// storeFailure is the answer to an error of the store, which it logs.
func (s *session) storeFailure(what string, err error) error {
	switch {
	case errors.Is(err, mailstore.ErrNoScript):
		return no(codeNone, "There is no script of that name")
	case errors.Is(err, mailstore.ErrScriptExists):
		return no(codeExists, "There is a script of that name already")
	case errors.Is(err, mailstore.ErrScriptActive):
		return no(codeActive, "The script is active: deactivate it first")
	case errors.Is(err, mailstore.ErrNoSpace):
		s.log().Warn(what, "error", err)
		return no(codeQuota, "There is no space left")
	}
	s.log().Error(what, "error", err)
	return no(codeLater, "The scripts are not available at the moment, try again later")
}

// compile checks a script; the refusal has all mistakes. warnings: what should be told of a script that is right.
func (s *session) compile(text string) (warnings string, err error) {
	script, err := sieve.Compile([]byte(text), sieve.Options{MaxBytes: int(s.srv.limits().ScriptSize), Without: s.srv.opt.Without})
	if err == nil {
		return lines(script.Warnings()), nil
	}
	var list sieve.Errors
	if !errors.As(err, &list) {
		return "", err
	}
	return "", no("", lines(list))
}

// lines gives mistakes, one a line.
func lines(list sieve.Errors) string {
	var b []byte
	for i, e := range list {
		if i > 0 {
			b = append(b, "\r\n"...)
		}
		b = append(b, e.Error()...)
	}
	return string(b)
}

// checked is the answer to a script that is right (RFC 5804 §1.3, WARNINGS).
func (s *session) checked(warnings, text string) {
	if warnings != "" {
		s.answer("OK", codeWarnings, warnings)
		return
	}
	s.answer("OK", "", text)
}
