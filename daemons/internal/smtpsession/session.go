package smtpsession

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/route"
	"shoal/daemons/internal/smtpguard"
)

// lookupTimeout bounds one question to the directory; its client has a bound of its own below this.
const lookupTimeout = 30 * time.Second

// ownFields is more than what we put in front of a message.
const ownFields = 2048

// session is one connection. Its methods are called one at a time.
type session struct {
	s      *Server
	c      *smtpguard.Conn
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	account *dirclient.Account // who has logged in
	unwatch func()             // ends the watch on the login
	tx      *transaction
}

type transaction struct {
	trace string
	from  mailaddr.Address
	utf8  bool
	size  int64
	begun time.Time
	envID string // ENVID, RET and BODY for the queue, in the form in which they are sent
	ret   string
	body  string

	rcpts  []recipient
	offers map[string]error // answers of the box by the address offered
	out    *deliver.Transaction
	away   bool // no box could be reached
	again  bool // a box got the message and its answer was lost
}

// recipient is one accepted RCPT.
type recipient struct {
	as     mailaddr.Address // as the client wrote it
	text   string           // the same, in the spelling that the library knows it by
	box    string           // the address that the box knows the account by; empty: it is none of one account here
	queue  bool             // cannot go to a box at once
	notify string           // NOTIFY and ORCPT, in the form in which they are sent
	orcpt  string
}

func reply(code, a, b, c int, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{a, b, c}, Message: text}
}

func (s *session) Reset() {
	if s.tx != nil && s.tx.out != nil {
		s.tx.out.Close()
	}
	s.tx = nil
}

func (s *session) Logout() error {
	s.Reset()
	if s.unwatch != nil {
		s.unwatch()
	}
	s.cancel()
	return nil
}

// remote is the client's address without its port.
func (s *session) remote() string {
	addr := s.c.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	a, err := smtpguard.Address(from)
	if err != nil {
		return reply(501, 5, 1, 7, "The sender's address is malformed")
	}
	if s.s.o.Submission {
		if s.account == nil {
			return reply(530, 5, 7, 0, "Log in first")
		}
		if err := s.ownSender(a); err != nil {
			return err
		}
	}
	s.tx = &transaction{trace: s.s.o.Traces.Next(), from: a, utf8: opts.UTF8, size: opts.Size, begun: time.Now(),
		envID: xtext(opts.EnvelopeID), ret: string(opts.Return), body: string(opts.Body), offers: make(map[string]error)}
	return nil
}

// ownSender lets a user send from the account's addresses, with or without a detail (user+detail), and from
// the null sender, which notifications have.
func (s *session) ownSender(a mailaddr.Address) error {
	if a.IsNull() {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, lookupTimeout)
	defer cancel()
	d, err := s.s.o.Router.Route(ctx, a)
	if err != nil {
		s.s.o.Log.Warn("sender not looked up", "event", "directory", "sender", a.String(), "error", err)
		return reply(451, 4, 3, 0, "The sender's address cannot be checked now, try again later")
	}
	own := (d.Outcome == route.Local || d.Outcome == route.Expanded) && d.Account != nil && d.Account.ID == s.account.ID && (d.Via == route.ViaAddress || d.Via == route.ViaSubaddress)
	if !own {
		s.event(slog.LevelInfo, "sender_refused", "", a, slog.String("account", s.account.Address))
		return reply(553, 5, 7, 1, "This sender address is not one of yours")
	}
	return nil
}

func (s *session) Rcpt(to string, opts *smtp.RcptOptions) error {
	tx := s.tx
	if tx == nil {
		return reply(503, 5, 5, 1, "No transaction")
	}
	a, err := smtpguard.Address(to)
	if err != nil {
		return reply(501, 5, 1, 3, "The recipient's address is malformed")
	}
	if a.IsPostmaster() && mailaddr.DomainKey(a.Domain) == mailaddr.DomainKey(s.s.o.Hostname) {
		a.Domain = "" // RFC 5321 §4.1.1.3: the guard has put our name behind <postmaster>
	}
	rc := recipient{as: a, text: to}
	rc.parameters(opts)
	box, err := s.find(tx, a)
	switch {
	case err != nil:
	case box.IsNull():
		rc.queue = true
	case s.s.o.Relay:
		rc.box, rc.queue = box.String(), true
	default:
		rc.box = box.String()
		rc.queue = wantsSuccess(rc.notify) && s.s.o.Queue != nil // the notification is made by who works the queue
		if err = s.offer(tx, box, a); err != nil && s.s.o.Queue != nil && class(err) == "deferred" && (tx.away || s.s.o.Submission) {
			rc.queue, err = true, nil
		}
	}
	if err == nil {
		tx.rcpts = append(tx.rcpts, rc)
	}
	result := "accepted"
	if err != nil {
		result = class(err)
		s.event(slog.LevelInfo, "rcpt_refused", tx.trace, tx.from, slog.String("rcpt", a.String()), slog.Any("error", err))
	}
	s.s.m.recipients.WithLabelValues(s.s.o.Listener, result).Inc()
	return err
}

// find asks the directory who takes mail for a, and gives the address by which the box knows the account; the null address
// means that the queue takes it: mail for elsewhere, and what stands for others.
func (s *session) find(tx *transaction, a mailaddr.Address) (mailaddr.Address, error) {
	ctx, cancel := context.WithTimeout(s.ctx, lookupTimeout)
	defer cancel()
	d, err := s.s.o.Router.Route(ctx, a)
	if err != nil {
		s.s.o.Log.Warn("recipient not looked up", "event", "directory", "trace", tx.trace, "rcpt", a.String(), "error", err)
		return mailaddr.Address{}, reply(451, 4, 3, 0, "The recipient cannot be looked up now, try again later")
	}
	switch d.Outcome {
	case route.Local:
		box, err := mailaddr.Parse(d.Recipient())
		if err != nil {
			s.s.o.Log.Error("account has an unusable address", "event", "directory", "trace", tx.trace, "rcpt", a.String(), "error", err)
			return mailaddr.Address{}, reply(451, 4, 3, 5, "The recipient's entry is unusable, try again later")
		}
		return box, nil
	case route.Suspended:
		return mailaddr.Address{}, reply(450, 4, 2, 1, "The mailbox takes no mail for now")
	case route.Expanded:
		if s.s.o.Queue == nil {
			return mailaddr.Address{}, reply(451, 4, 3, 5, "There is no queue for aliases and forwards, try again later")
		}
		return mailaddr.Address{}, nil
	case route.Foreign:
		if (s.s.o.Submission || s.s.o.Relay) && s.s.o.Queue != nil {
			return mailaddr.Address{}, nil
		}
		if s.s.o.Submission {
			return mailaddr.Address{}, reply(550, 5, 7, 1, "No outbound routing is set up: mail to other domains cannot be sent")
		}
		return mailaddr.Address{}, reply(550, 5, 7, 1, "Relaying denied")
	}
	return mailaddr.Address{}, reply(550, 5, 1, 1, "No such mailbox")
}

// offer asks the box for the recipient, once for each account.
func (s *session) offer(tx *transaction, box, original mailaddr.Address) error {
	key := box.String()
	if err, asked := tx.offers[key]; asked {
		return err
	}
	if tx.away && s.s.o.Queue != nil {
		return reply(451, 4, 3, 0, "The mail store cannot be reached now, try again later") // not each recipient has to wait for that
	}
	if tx.out == nil {
		envelope := deliver.Envelope{From: tx.from, EnvID: tx.trace, EightBit: true, UTF8: tx.utf8}
		if tx.size > 0 {
			envelope.Size = tx.size + ownFields
		}
		out, err := s.s.o.Transport.Begin(s.ctx, envelope)
		if err != nil {
			return s.unavailable(tx, err)
		}
		tx.out = out
	}
	err := tx.out.RcptFor(box, original)
	if err != nil {
		err = s.refusal(tx, err)
	}
	if class(err) != "deferred" { // what may pass is asked again
		tx.offers[key] = err
	}
	return err
}

// refusal words what the box said. Its 550 to 553 are about the recipient or the message and are passed on.
// Every other 5yz is about our right to talk to it: that is our trouble, and not the sender's.
func (s *session) refusal(tx *transaction, err error) error {
	e := answer(err)
	if e == nil {
		return s.unavailable(tx, err)
	}
	text := e.Text
	if i := strings.Index(text, "> "); strings.HasPrefix(text, "<") && i > 0 {
		text = text[i+2:] // the address that the box knows: the sender may have used another
	}
	return &smtp.SMTPError{Code: e.Code, EnhancedCode: smtp.EnhancedCode(e.Enhanced), Message: text}
}

// answer is what a box said about a recipient or the message; nil when it is trouble of ours.
func answer(err error) *deliver.Error {
	var e *deliver.Error
	if errors.As(err, &e) && !errors.Is(err, deliver.ErrUnavailable) && (e.Code >= 550 && e.Code <= 553 || e.Code/100 == 4 && e.Code != 421) {
		return e
	}
	return nil
}

func (s *session) unavailable(tx *transaction, err error) error {
	tx.away = true
	s.event(slog.LevelWarn, "box_unavailable", tx.trace, tx.from, slog.Any("error", err))
	return reply(451, 4, 3, 0, "The mail store cannot be reached now, try again later")
}

// event logs one mail event.
func (s *session) event(level slog.Level, event, trace string, from mailaddr.Address, attrs ...slog.Attr) {
	if !s.s.o.Log.Enabled(s.ctx, level) {
		return
	}
	all := append(make([]slog.Attr, 0, 6+len(attrs)), slog.String("event", event), slog.String("trace", trace),
		slog.String("listener", s.s.o.Listener), slog.String("client", s.remote()), slog.String("from", from.String()))
	if s.account != nil {
		all = append(all, slog.String("user", s.account.Address))
	}
	s.s.o.Log.LogAttrs(s.ctx, level, eventText[event], append(all, attrs...)...)
}

var eventText = map[string]string{
	"rcpt_refused": "recipient refused", "box_unavailable": "no box takes the message", "sender_refused": "sender refused",
	"accepted": "message delivered", "queued": "message queued", "enqueued": "entries made", "queue_failed": "the queue failed", "message_refused": "message refused", "message_deferred": "message deferred",
}

// class names the result for the counters.
func class(err error) string {
	var se *smtp.SMTPError
	switch {
	case err == nil:
		return "accepted"
	case errors.As(err, &se) && se.Code/100 == 5:
		return "refused"
	}
	return "deferred"
}
