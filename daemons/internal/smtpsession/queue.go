package smtpsession

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/emersion/go-smtp"

	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/queue"
)

// keep is how much of a message is kept until its reply, in case that it has to be queued; keepAll bounds it for all
// messages of a listener together: beyond it none is kept.
const (
	keep    = 512 << 10
	keepAll = 256 << 20
)

// keeper remembers what was read of a message, up to keep octets.
type keeper struct {
	r     io.Reader
	buf   []byte
	lost  bool          // more than that was read
	total *atomic.Int64 // what all keepers have
}

func (k *keeper) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	switch {
	case k.lost:
	case len(k.buf)+n > keep || k.total.Load()+int64(n) > keepAll:
		k.free()
		k.lost = true
	default:
		k.total.Add(int64(n))
		k.buf = append(k.buf, p[:n]...)
	}
	return n, err
}

// free forgets what was kept.
func (k *keeper) free() {
	k.total.Add(-int64(len(k.buf)))
	k.buf = nil
}

// ahead reads the whole message, and tells whether it could be kept. What was read, and what follows, is what again gives
// or, if it could not be kept, the reader that is returned.
func (k *keeper) ahead() (io.Reader, bool, error) {
	for !k.lost {
		if len(k.buf) == cap(k.buf) {
			k.buf = append(k.buf, 0)[:len(k.buf)]
		}
		n, err := k.r.Read(k.buf[len(k.buf):cap(k.buf)])
		k.total.Add(int64(n))
		k.buf = k.buf[:len(k.buf)+n]
		switch {
		case err == io.EOF:
			k.r = bytes.NewReader(nil)
			return k.again(), true, nil
		case err != nil:
			return nil, false, err
		case len(k.buf) > keep || k.total.Load() > keepAll:
			return io.MultiReader(bytes.NewReader(k.buf), k.r), false, nil
		}
	}
	return nil, false, errors.New("smtpsession: read ahead after the message was let go")
}

// again gives the message from its beginning; nil when that is lost.
func (k *keeper) again() io.Reader {
	if k.lost {
		return nil
	}
	return io.MultiReader(bytes.NewReader(k.buf), k.r)
}

// queueAll tells whether some recipient cannot be served by a box at once, so that the message is queued for all.
func (tx *transaction) queueAll() bool {
	for _, rc := range tx.rcpts {
		if rc.queue {
			return true
		}
	}
	return tx.out == nil
}

// boxes counts the accounts that a box was asked for.
func (tx *transaction) boxes() int {
	seen := make(map[string]bool, len(tx.rcpts))
	for _, rc := range tx.rcpts {
		seen[rc.box] = true
	}
	return len(seen)
}

// cutThrough streams the message to the box and queues it for those who cannot have it now. With several recipients
// the answers may differ, and the sender gets one: such a message is kept whole before it goes to the box, and queued for all if
// it is too large for that.
func (s *session) cutThrough(tx *transaction, k *keeper) (string, error) {
	var message io.Reader = k
	if tx.boxes() > 1 {
		whole, kept, err := k.ahead()
		switch {
		case err != nil:
			return "", err
		case !kept:
			return saidQueued, s.enqueue(tx, whole, tx.rcpts)
		}
		message = whole
	}
	results, err := tx.out.Data(message)
	if err != nil {
		worded := s.dataError(tx, err)
		switch {
		case class(worded) == "refused", errors.Is(err, deliver.ErrAborted), isViolation(err):
			return "", worded
		case answer(err) != nil && !s.s.o.Submission:
			return "", worded // the box says "later": the other server has a queue
		}
		if whole := k.again(); whole != nil {
			return saidQueued, s.enqueue(tx, whole, tx.rcpts)
		}
		return "", worded
	}
	delivered, refused, answered, unknown := 0, 0, 0, 0
	missing := map[string]bool{}
	var first error
	for _, r := range results {
		if r.Err == nil {
			delivered++
			continue
		}
		missing[r.Rcpt.String()] = true
		if answer(r.Err) != nil {
			answered++
		}
		if errors.Is(r.Err, deliver.ErrUnknown) {
			unknown++
		}
		worded := s.refusal(tx, r.Err)
		if class(worded) == "refused" {
			refused++
		}
		if first == nil || class(first) == "refused" && class(worded) != "refused" {
			first = worded
		}
		s.event(slog.LevelWarn, "rcpt_refused", tx.trace, tx.from, slog.String("rcpt", r.Rcpt.String()), slog.Any("error", r.Err))
	}
	whole := k.again()
	switch {
	case len(missing) == 0:
		return saidDelivered, nil
	case unknown > 0 && whole == nil:
		// It may be in the mailbox: whoever is told "later" knows that he may be sending it again (RFC 5321 §6.1).
		return "", reply(451, 4, 3, 0, "It is not known whether the message was delivered, try again later")
	case unknown > 0: // the boxes are told that this is the same message once more
	case refused == len(results), delivered == 0 && answered == len(results) && !s.s.o.Submission:
		return "", first
	case whole == nil && delivered == 0:
		return "", first
	case whole == nil:
		return "", reply(451, 4, 3, 0, "Not all recipients could be served, try again later")
	}
	var rest []recipient
	for _, rc := range tx.rcpts {
		if missing[rc.box] {
			rest = append(rest, rc)
		}
	}
	tx.again = unknown > 0
	return saidQueued, s.enqueue(tx, whole, rest)
}

func isViolation(err error) bool {
	var v *smtp.SMTPError
	return errors.As(err, &v)
}

// enqueue takes the message into the queue, with an entry for our own recipients and one for each destination elsewhere. Its
// error is a reply, or an error of the reader.
func (s *session) enqueue(tx *transaction, content io.Reader, rcpts []recipient) error {
	now := s.s.o.Clock.Now()
	var envelopes []queue.Envelope
	place := map[string]int{}
	for _, rc := range rcpts {
		key := ""
		if rc.box == "" {
			key = s.s.o.Destination(rc.as.Domain)
		}
		at, ok := place[key]
		if !ok {
			at = len(envelopes)
			place[key] = at
			envelopes = append(envelopes, queue.Envelope{From: tx.from.String(), EnvID: tx.envID, Return: tx.ret, UTF8: tx.utf8, Body: tx.body,
				Trace: tx.trace, Again: tx.again, Accepted: now.Unix(), Expires: now.Add(s.s.o.Life).Unix()})
		}
		envelopes[at].Recipients = append(envelopes[at].Recipients, queue.Recipient{Address: rc.as.String(), Notify: rc.notify, ORcpt: rc.orcpt})
	}
	ids, err := s.s.o.Queue.Enqueue(s.ctx, content, now, envelopes...)
	switch {
	case err == nil:
		s.s.m.queued.WithLabelValues(s.s.o.Listener).Inc()
		s.event(slog.LevelInfo, "enqueued", tx.trace, tx.from, slog.Any("entries", ids))
		return nil
	case isViolation(err):
		return err
	}
	s.event(slog.LevelError, "queue_failed", tx.trace, tx.from, slog.Any("error", err))
	if errors.Is(err, queue.ErrNoSpace) || errors.Is(err, queue.ErrFull) {
		return reply(452, 4, 3, 1, "The queue is full, try again later")
	}
	return reply(451, 4, 3, 0, "The message cannot be queued now, try again later")
}

// parameters takes NOTIFY and ORCPT in the form in which they are sent on (RFC 3461 §4.1, §4.2; RFC 6533 §3).
func (rc *recipient) parameters(o *smtp.RcptOptions) {
	if o == nil {
		return
	}
	var words []string
	for _, n := range o.Notify {
		words = append(words, strings.ToUpper(string(n)))
	}
	rc.notify = strings.Join(words, ",")
	if o.OriginalRecipient != "" {
		rc.orcpt = strings.ToLower(string(o.OriginalRecipientType)) + ";" + xtext(o.OriginalRecipient)
	}
}

func wantsSuccess(notify string) bool {
	for _, n := range strings.Split(notify, ",") {
		if n == string(smtp.DSNNotifySuccess) {
			return true
		}
	}
	return false
}

// xtext is RFC 3461 §4's encoding; what is not ASCII gets RFC 6533 §3's.
func xtext(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r >= utf8.RuneSelf:
			fmt.Fprintf(&b, "\\x{%X}", r)
		case r > ' ' && r < 0x7f && r != '+' && r != '=':
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "+%02X", r)
		}
	}
	return b.String()
}
