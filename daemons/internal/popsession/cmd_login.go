package popsession

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/mailstore"
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

// mayLogin says whether a password may be sent on this connection.
func (s *session) mayLogin() bool { return s.isTLS() || s.srv.limits().AllowPlain }

// cmdCapa is CAPA of RFC 2449 §5. What is listed changes with STLS and with the login.
func cmdCapa(s *session, _ context.Context, args string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	s.line("+OK Capabilities follow")
	if s.state == stateAuthorization {
		if s.mayLogin() {
			s.line("USER")
			s.line("SASL PLAIN LOGIN")
		}
		if s.srv.opt.TLS != nil && !s.isTLS() {
			s.line("STLS")
		}
	}
	for _, c := range []string{"TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER", "IMPLEMENTATION Shoal"} {
		s.line(c)
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
	s.name = "" // RFC 2595 §4: nothing that was said before counts
	return nil
}

var errNeedTLS = fail("", "Begin TLS first: a password must not be sent in the clear")

// cmdUser is USER of RFC 1939 §7. It answers alike for all names.
func cmdUser(s *session, _ context.Context, args string) error {
	if !s.mayLogin() {
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
	return s.login(ctx, name, args)
}

// cmdAuth is AUTH of RFC 5034 with an initial response; alone it lists the mechanisms, as old clients ask.
//
//	"AUTH" [SP mechanism [SP (base64 / "=")]]
func cmdAuth(s *session, ctx context.Context, args string) error {
	if args == "" {
		s.line("+OK Mechanisms follow")
		if s.mayLogin() {
			s.line("PLAIN")
			s.line("LOGIN")
		}
		s.line(".")
		return nil
	}
	mechanism, initial, given := strings.Cut(args, " ")
	mechanism = strings.ToUpper(mechanism)
	if mechanism != "PLAIN" && mechanism != "LOGIN" {
		return fail("", "That mechanism is not offered")
	}
	if !s.mayLogin() {
		return errNeedTLS
	}
	var first []byte
	if given {
		var err error
		if first, err = decodeSASL(initial); err != nil {
			return err
		}
	}
	if mechanism == "PLAIN" {
		return s.saslPlain(ctx, first)
	}
	return s.saslLogin(ctx, first)
}

// saslPlain is RFC 4616: [authzid] NUL authcid NUL passwd.
func (s *session) saslPlain(ctx context.Context, first []byte) error {
	response, err := s.challenge(first, "")
	if err != nil {
		return err
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 {
		return misuse("Malformed PLAIN response")
	}
	user := string(parts[1])
	if as := string(parts[0]); as != "" && !strings.EqualFold(as, user) {
		s.fails++
		return fail(codeAuth, "Acting for another user is not possible")
	}
	return s.login(ctx, user, string(parts[2]))
}

// saslLogin is the mechanism LOGIN of old clients: user name and password, each asked for.
func (s *session) saslLogin(ctx context.Context, first []byte) error {
	user, err := s.challenge(first, "Username:")
	if err != nil {
		return err
	}
	password, err := s.challenge(nil, "Password:")
	if err != nil {
		return err
	}
	return s.login(ctx, string(user), string(password))
}

// challenge returns the client's response: the initial one if there is one, else what it answers to the
// challenge.
func (s *session) challenge(initial []byte, text string) ([]byte, error) {
	if initial != nil {
		return initial, nil
	}
	s.line("+ " + base64.StdEncoding.EncodeToString([]byte(text)))
	line, err := s.readLine(int(s.srv.limits().SASLLimit))
	if err != nil {
		return nil, err
	}
	if line == "*" {
		return nil, fail("", "Authentication given up")
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

// login checks the password and opens the maildrop.
func (s *session) login(ctx context.Context, user, password string) error {
	account, err := s.srv.opt.Auth.Login(ctx, user, password, s.remote)
	if err != nil {
		return s.refused(user, err)
	}
	if !s.conn.AdmitUser(account.ID) {
		s.srv.m.logins.WithLabelValues("limit").Inc()
		return fail(codeTemporary, "Too many connections of this user, try again later")
	}
	drop, err := openMaildrop(ctx, s.srv.opt.Store, account.Volume, account.ID)
	if err != nil {
		s.conn.DismissUser()
		s.srv.m.logins.WithLabelValues("unavailable").Inc()
		return s.storeFailure("cannot open the INBOX of "+account.Address, err)
	}
	s.srv.m.logins.WithLabelValues("ok").Inc()
	s.user, s.drop, s.state = account, drop, stateTransaction
	s.log().Info("login", "event", "pop-login", "tls", s.isTLS(), "messages", drop.state.Len())
	return s.ok("%d messages (%d octets)", drop.count, drop.size)
}

// refused is the answer to a login that failed, which it logs and counts.
func (s *session) refused(user string, err error) error {
	result, answer := "refused", fail(codeAuth, "User name or password is wrong")
	switch {
	case errors.Is(err, authn.ErrBadCredentials):
		s.fails++
	case errors.Is(err, authn.ErrSuspended):
		s.fails++
		result, answer = "suspended", fail(codeAuth, "The account is suspended")
	case errors.Is(err, authn.ErrThrottled):
		s.fails++
		result, answer = "throttled", fail(codeTemporary, "Too many failed logins, try again later")
	default:
		s.srv.m.logins.WithLabelValues("unavailable").Inc()
		s.log().Warn("login could not be checked", "name", printable(user), "error", err)
		return fail(codeTemporary, "Logins cannot be checked at the moment, try again later")
	}
	s.srv.m.logins.WithLabelValues(result).Inc()
	s.log().Info("login refused", "event", "pop-login-refused", "result", result, "name", printable(user))
	return answer
}

// printable is the beginning of a name for a log.
func printable(s string) string {
	if len(s) > 100 {
		s = s[:100]
	}
	return strings.ToValidUTF8(s, "?")
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
