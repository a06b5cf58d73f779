package popsession

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sasl"
)

// command is one command: where it may be given, and what it does. do gets what follows the keyword and the
// blank behind it. It answers +OK itself; a *failure or a misuse that it returns is answered -ERR, and any
// other error ends the session.
type command struct {
	name   string
	states state
	do     func(s *session, ctx context.Context, args string) error
}

var commands = map[string]*command{}

func init() {
	for _, c := range []*command{
		{"CAPA", stateAny, cmdCapa},
		{"STLS", stateAuthorization, cmdStls},
		{"USER", stateAuthorization, cmdUser},
		{"PASS", stateAuthorization, cmdPass},
		{"AUTH", stateAuthorization, cmdAuth},
		{"UTF8", stateAuthorization, cmdUtf8},
		{"LANG", stateAny, cmdLang},
		{"STAT", stateTransaction, cmdStat},
		{"LIST", stateTransaction, cmdList},
		{"UIDL", stateTransaction, cmdUidl},
		{"RETR", stateTransaction, cmdRetr},
		{"TOP", stateTransaction, cmdTop},
		{"DELE", stateTransaction, cmdDele},
		{"RSET", stateTransaction, cmdRset},
		{"NOOP", stateTransaction, cmdNoop},
		{"QUIT", stateAny, cmdQuit},
	} {
		commands[c.name] = c
	}
}

func noArguments(args string) error {
	if args != "" {
		return misuse("The command takes no arguments")
	}
	return nil
}

// saslConn is what a login has to know of the connection.
func (s *session) saslConn() *sasl.Conn {
	c := &sasl.Conn{Service: authn.ServicePOP, Remote: s.remote, Plain: s.srv.limits().AllowPlain}
	if t, ok := s.stream.(*tls.Conn); ok {
		state := t.ConnectionState()
		c.TLS = &state
	}
	return c
}

// cmdCapa is CAPA of RFC 2449 §5. What is listed changes with STLS and with the login.
func cmdCapa(s *session, _ context.Context, args string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	s.line("+OK Capabilities follow")
	if s.state == stateAuthorization {
		conn := s.saslConn()
		if conn.Secure() {
			s.line("USER")
		}
		if names := s.srv.sasl.Names(conn); len(names) > 0 {
			s.line("SASL " + strings.Join(names, " "))
		}
		if s.srv.opt.TLS != nil && !s.isTLS() {
			s.line("STLS")
		}
	}
	for _, c := range []string{"TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "UTF8", "LANG", "IMPLEMENTATION Shoal"} {
		s.line(c)
	}
	lim := s.srv.limits()
	switch {
	case lim.RemoveRetrieved:
		s.line("EXPIRE 0")
	case lim.ExpireDays > 0:
		s.line(fmt.Sprintf("EXPIRE %d", lim.ExpireDays))
	default:
		s.line("EXPIRE NEVER")
	}
	if delay := lim.loginDelay(); delay > 0 {
		s.line(fmt.Sprintf("LOGIN-DELAY %d", delay/time.Second))
	}
	s.line(".")
	return nil
}

// cmdStls begins TLS: RFC 2595 §4. Nothing may be sent behind it before the handshake: what is there is no
// part of the protected session, and a client that sends it is under attack.
func cmdStls(s *session, _ context.Context, args string) error {
	switch {
	case args != "":
		return noArguments(args)
	case s.isTLS():
		return fail("", "TLS is active already")
	case s.srv.opt.TLS == nil:
		return fail("", "TLS is not available")
	case s.r.Buffered() > 0:
		s.line("-ERR Commands behind STLS were sent without protection")
		return errOver
	}
	s.line("+OK Begin the TLS handshake")
	if err := s.w.Flush(); err != nil {
		return err
	}
	c, err := s.conn.StartTLS()
	if err != nil {
		return errOver
	}
	s.use(c)
	s.name, s.utf8 = "", false // RFC 2595 §4: nothing that was said before counts
	return nil
}

var errNeedTLS = fail("", "Begin TLS first: a password must not be sent in the clear")

// cmdUser is USER of RFC 1939 §7. It answers alike for all names.
func cmdUser(s *session, _ context.Context, args string) error {
	if conn := s.saslConn(); !conn.Secure() {
		return errNeedTLS
	}
	if args == "" {
		return misuse("USER needs a name")
	}
	s.name = args
	return s.ok("Send the password")
}

// cmdPass is PASS of RFC 1939 §7. All of the line is the password, blanks included.
func cmdPass(s *session, ctx context.Context, args string) error {
	name := s.name
	s.name = ""
	if name == "" {
		return misuse("Give USER first")
	}
	conn := s.saslConn()
	if !conn.Secure() {
		return errNeedTLS
	}
	grant, err := s.srv.sasl.Password(ctx, conn.From("USER"), name, args)
	return s.login(ctx, grant, err)
}

// cmdAuth is AUTH of RFC 5034 with an initial response; alone it lists the mechanisms, as old clients ask.
//
//	"AUTH" [SP mechanism [SP (base64 / "=")]]
func cmdAuth(s *session, ctx context.Context, args string) error {
	if args == "" {
		s.line("+OK Mechanisms follow")
		for _, name := range s.srv.sasl.Names(s.saslConn()) {
			s.line(name)
		}
		s.line(".")
		return nil
	}
	mechanism, initial, given := strings.Cut(args, " ")
	var first []byte
	if given {
		var err error
		if first, err = decodeSASL(initial); err != nil {
			return err
		}
	}
	grant, err := s.srv.sasl.Run(ctx, mechanism, s.saslConn(), first, (*saslWire)(s))
	return s.login(ctx, grant, err)
}

// saslWire carries a SASL exchange.
type saslWire session

// Ask sends a challenge and reads the response.
func (w *saslWire) Ask(challenge []byte) ([]byte, error) {
	s := (*session)(w)
	s.line("+ " + base64.StdEncoding.EncodeToString(challenge))
	line, err := s.readLine(int(s.srv.limits().SASLLimit))
	if err != nil {
		return nil, err
	}
	if line == "*" {
		return nil, sasl.ErrCancelled
	}
	return decodeSASL(line)
}

// decodeSASL decodes a response; "=" is the empty one.
func decodeSASL(line string) ([]byte, error) {
	if line == "=" {
		return []byte{}, nil
	}
	out, err := base64.StdEncoding.Strict().DecodeString(line)
	if err != nil {
		return nil, misuse("Malformed base64")
	}
	return out, nil
}

// login opens the maildrop of a login, or answers why there is none. The line in the log is package authn's.
func (s *session) login(ctx context.Context, grant *authn.Grant, err error) error {
	if err != nil {
		return s.refused(err)
	}
	account := grant.Account
	if !s.conn.AdmitUser(account.ID) {
		s.srv.m.logins.WithLabelValues("limit").Inc()
		return fail(codeTemporary, "Too many connections of this user, try again later")
	}
	if !s.srv.came.admit(account.ID, s.srv.clock.Boot(), s.srv.limits().loginDelay()) {
		s.conn.DismissUser()
		s.srv.m.logins.WithLabelValues("delay").Inc()
		return fail(codeDelay, "Your last login is not long enough ago")
	}
	drop, err := openMaildrop(ctx, s.srv.opt.Store, account.Volume, account.ID)
	if err != nil {
		s.conn.DismissUser()
		s.srv.m.logins.WithLabelValues("unavailable").Inc()
		return s.storeFailure("cannot open the INBOX of "+account.Address, err)
	}
	s.srv.m.logins.WithLabelValues("ok").Inc()
	s.user, s.drop, s.state = account, drop, stateTransaction
	s.unwatch = s.srv.sasl.Watch(grant, s.revoke)
	return s.ok("%d messages (%d octets)", drop.count, drop.size)
}

// refused is the answer to a login that failed, which it counts.
func (s *session) refused(err error) error {
	result, answer := "refused", fail(codeAuth, "User name or password is wrong")
	switch {
	case errors.Is(err, sasl.ErrMalformed):
		return misuse("Malformed response")
	case errors.Is(err, sasl.ErrCancelled):
		return fail("", "Authentication given up")
	case errors.Is(err, sasl.ErrMechanism):
		return fail("", "That mechanism is not offered")
	case errors.Is(err, sasl.ErrNeedTLS):
		return errNeedTLS
	case errors.Is(err, sasl.ErrAuthorization):
		s.fails++
		return fail(codeAuth, "Acting for another user is not possible")
	case errors.Is(err, authn.ErrBadCredentials):
		s.fails++
	case errors.Is(err, authn.ErrSuspended):
		s.fails++
		result, answer = "suspended", fail(codeAuth, "The account is suspended")
	case errors.Is(err, authn.ErrThrottled):
		s.fails++
		result, answer = "throttled", fail(codeTemporary, "Too many failed logins, try again later")
	case !errors.Is(err, authn.ErrUnavailable):
		return err // of the connection
	default:
		s.srv.m.logins.WithLabelValues("unavailable").Inc()
		return fail(codeTemporary, "Logins cannot be checked at the moment, try again later")
	}
	s.srv.m.logins.WithLabelValues(result).Inc()
	return answer
}

// openMaildrop opens the INBOX of an account as it is now.
func openMaildrop(ctx context.Context, store Store, volume, id string) (*maildrop, error) {
	account, err := store.Account(ctx, volume, id)
	if err != nil {
		return nil, fmt.Errorf("open account: %w", err)
	}
	box, err := account.Open(ctx, mailstore.Inbox)
	if err != nil {
		return nil, fmt.Errorf("open INBOX: %w", err)
	}
	state, err := box.State(ctx)
	if err != nil {
		return nil, fmt.Errorf("read INBOX: %w", err)
	}
	return &maildrop{box: box, state: state, count: state.Len(), size: state.Bytes()}, nil
}
