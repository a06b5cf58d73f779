package lmtpsession

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/smtpguard"
)

// Bounds of one step; the store and the directory have their own below these.
const (
	lookupTimeout  = 30 * time.Second
	deliverTimeout = 4 * time.Minute
)

// session is one connection. Its methods are called one at a time.
type session struct {
	s  *Server
	tx *transaction
}

type transaction struct {
	from  mailaddr.Address
	trace string
	again bool // an attempt before this one had no answer
	begun time.Time
	size  int64 // announced with SIZE; 0: not

	rcpts   []recipient
	targets []target
	index   map[string]int // account id -> place in targets
}

// recipient is one accepted RCPT, in the spelling that the library knows it by.
type recipient struct {
	text    string
	address string // as it is written into Delivered-To
	target  int
}

// target is one account.
type target struct {
	account *dirclient.Account
	handle  *mailstore.Account
	rcpt    string           // the first address it was reached by
	to      mailaddr.Address // the same as the sender wrote it
	result  mailstore.Result
	did     []string // what the account's scripts did with it; nil: there were none
}

func reply(code int, a, b, c int, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{a, b, c}, Message: text}
}

func (s *session) Reset() { s.tx = nil }

func (s *session) Logout() error {
	s.Reset()
	return nil
}

func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	a, err := smtpguard.Address(from)
	if err != nil {
		return reply(501, 5, 1, 7, "The sender's address is malformed")
	}
	s.tx = &transaction{from: a, begun: time.Now(), size: opts.Size, index: make(map[string]int)}
	s.tx.takeTrace(opts.EnvelopeID)
	return nil
}

func (s *session) Rcpt(to string, opts *smtp.RcptOptions) error {
	tx := s.tx
	a, err := smtpguard.Address(to)
	if err != nil {
		return reply(501, 5, 1, 3, "The recipient's address is malformed")
	}
	ctx, cancel := context.WithTimeout(s.s.ctx, lookupTimeout)
	defer cancel()
	i, err := s.find(ctx, tx, a)
	if err != nil {
		s.s.m.recipients.WithLabelValues(class(err)).Inc()
		s.s.o.Log.LogAttrs(ctx, level(err), "recipient refused", slog.String("event", "rcpt_refused"), slog.String("trace", tx.trace),
			slog.String("from", tx.from.String()), slog.String("rcpt", a.String()), slog.Any("error", err))
		return answer(err)
	}
	tx.rcpts = append(tx.rcpts, recipient{to, a.String(), i})
	if opts != nil && opts.OriginalRecipientType == smtp.DSNAddressTypeRFC822 {
		if original, err := mailaddr.Parse(opts.OriginalRecipient); err == nil && tx.targets[i].rcpt == a.String() {
			tx.targets[i].to = original
		}
	}
	return nil
}

// find gives the place in targets of the account that takes mail for a.
func (s *session) find(ctx context.Context, tx *transaction, a mailaddr.Address) (int, error) {
	account, err := s.s.o.Accounts.Account(ctx, a.Key())
	if err != nil {
		return 0, fmt.Errorf("look up %s: %w", a, err)
	}
	if account.Status == dirclient.StatusClosed {
		return 0, errClosed // a suspended one gets its mail: it is its login that is suspended
	}
	if i, ok := tx.index[account.ID]; ok {
		return i, nil
	}
	handle, err := s.s.o.Store.Account(ctx, account.Volume, account.ID)
	if err != nil {
		return 0, fmt.Errorf("open account %s on volume %s: %w", account.ID, account.Volume, err)
	}
	if err := mayPost(ctx, account, handle); err != nil {
		return 0, err
	}
	if !tx.again { // what is there already needs no room: it is asked for later
		if err := s.room(ctx, account, handle, tx.size); err != nil {
			return 0, err
		}
	}
	tx.targets = append(tx.targets, target{account: account, handle: handle, rcpt: a.String(), to: a})
	tx.index[account.ID] = len(tx.targets) - 1
	return len(tx.targets) - 1, nil
}

// usageAge is how old what this box knows of a mailbox may be when it is held against a limit.
const usageAge = time.Minute

// room refuses an account that is full, or would be with what the sender announced. A message of unknown size may go over
// the limit once.
func (s *session) room(ctx context.Context, a *dirclient.Account, handle *mailstore.Account, size int64) error {
	if a.QuotaStorage <= 0 && a.QuotaMessages <= 0 {
		return nil
	}
	limits := mailstore.Usage{Bytes: max(a.QuotaStorage, 0), Messages: max(a.QuotaMessages, 0)}
	u, over, err := handle.Over(ctx, limits, mailstore.Usage{Bytes: max(size, 1), Messages: 1}, usageAge)
	if err != nil {
		return fmt.Errorf("usage of account %s: %w", a.ID, err)
	}
	if over {
		if s.s.o.DeferOverQuota {
			return fmt.Errorf("%w: %d bytes in %d messages", errFullForNow, u.Bytes, u.Messages)
		}
		return fmt.Errorf("%w: %d bytes in %d messages", errFull, u.Bytes, u.Messages)
	}
	return nil
}

// Data is not used: the server runs in LMTP mode.
func (s *session) Data(r io.Reader) error {
	return reply(554, 5, 5, 1, "LMTP only")
}

// LMTPData stores the message and sets one status for each accepted RCPT.
func (s *session) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	tx := s.tx
	if tx == nil {
		return reply(503, 5, 5, 1, "No transaction")
	}
	ctx, cancel := context.WithTimeout(s.s.ctx, deliverTimeout)
	defer cancel()
	size, err := s.store(ctx, tx, r)
	if err != nil {
		s.s.o.Log.LogAttrs(ctx, slog.LevelWarn, "message not stored", slog.String("event", "not_stored"), slog.String("trace", tx.trace),
			slog.String("from", tx.from.String()), slog.Int("rcpts", len(tx.rcpts)), slog.Any("error", err))
		s.s.m.recipients.WithLabelValues(class(err)).Add(float64(len(tx.rcpts)))
		return answer(err)
	}
	s.s.m.bytes.Add(float64(size))
	s.s.m.duration.Observe(time.Since(tx.begun).Seconds())
	for i := range tx.targets {
		if t := &tx.targets[i]; t.result.Duplicate {
			s.suppressed(ctx, tx, t)
		}
	}
	for _, rcpt := range tx.rcpts {
		status.SetStatus(rcpt.text, s.outcome(ctx, tx, rcpt, size))
	}
	return nil
}

// outcome logs what became of the message for one recipient and words the reply.
func (s *session) outcome(ctx context.Context, tx *transaction, rcpt recipient, size int64) error {
	t := &tx.targets[rcpt.target]
	err := t.result.Err
	s.s.m.recipients.WithLabelValues(class(err)).Inc()
	attrs := []slog.Attr{slog.String("event", "delivered"), slog.String("trace", tx.trace), slog.String("from", tx.from.String()),
		slog.String("rcpt", rcpt.text), slog.String("account", t.account.ID), slog.String("volume", t.account.Volume), slog.Int64("size", size)}
	if err != nil {
		attrs[0] = slog.String("event", "deferred")
		s.s.o.Log.LogAttrs(ctx, slog.LevelWarn, "message not delivered", append(attrs, slog.Any("error", err))...)
		return answer(err)
	}
	if t.did != nil {
		attrs = append(attrs, slog.String("did", strings.Join(t.did, ", ")))
	}
	s.s.o.Log.LogAttrs(ctx, slog.LevelInfo, "message delivered", append(attrs, slog.String("mailbox", t.result.MailboxID),
		slog.Uint64("uid", uint64(t.result.UID)), slog.String("id", t.result.ID))...)
	if t.result.ID == "" { // the scripts stored it nowhere
		return reply(250, 2, 0, 0, "Done")
	}
	if t.result.Duplicate {
		return reply(250, 2, 0, 0, "Delivered before, "+t.result.ID)
	}
	return reply(250, 2, 0, 0, "Delivered, "+t.result.ID)
}

var (
	errClosed = errors.New("the account is closed")
	errNoPost = errors.New("nobody may send mail to these public mailboxes")

	errFull       = errors.New("the account is over its quota")
	errFullForNow = errors.New("the account is over its quota for now")
)

// answer words an error as a reply. Only what the directory or the store is certain of is refused for good.
func answer(err error) error {
	var se *smtp.SMTPError
	switch {
	case errors.As(err, &se):
		return se
	case errors.Is(err, dirclient.ErrNoSuchAccount), errors.Is(err, dirclient.ErrNoSuchDomain):
		return reply(550, 5, 1, 1, "No such mailbox")
	case errors.Is(err, errNoPost):
		return reply(550, 5, 7, 1, "No mail may be sent to this mailbox")
	case errors.Is(err, errClosed):
		return reply(550, 5, 2, 1, "The mailbox is closed")
	case errors.Is(err, errFull):
		return reply(552, 5, 2, 2, "The mailbox is full")
	case errors.Is(err, errFullForNow):
		return reply(452, 4, 2, 2, "The mailbox is full, try again later")
	case errors.Is(err, mailstore.ErrTooLarge):
		return reply(552, 5, 3, 4, "The message is too large")
	case errors.Is(err, mailstore.ErrNoSpace), errors.Is(err, mailstore.ErrReadOnly):
		return reply(452, 4, 3, 1, "The volume has no space, try again later")
	}
	return reply(451, 4, 3, 0, "Cannot be stored now, try again later")
}

// class names the result for the counter.
func class(err error) string {
	if err == nil {
		return "delivered"
	}
	var se *smtp.SMTPError
	if errors.As(answer(err), &se) && se.Code >= 500 {
		return "refused"
	}
	return "deferred"
}

func level(err error) slog.Level {
	if class(err) == "refused" {
		return slog.LevelInfo
	}
	return slog.LevelWarn
}
