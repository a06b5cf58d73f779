package deliver

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"shoal/daemons/internal/mailaddr"
)

// Transaction is one message on its way: Begin, Rcpt at least once, then Data or Close. One goroutine at
// a time.
type Transaction struct {
	t   *Transport
	ctx context.Context
	env Envelope

	c     *conn // in the transaction; nil before the first Rcpt and after a failure
	stop  func() bool
	slot  bool
	begun time.Time

	rcpts []RcptResult // accepted ones; Err is set when a server that had to step in refused one later
	tried []string     // addresses that failed in this transaction
	ended bool
}

// Rcpt offers one recipient. Nil: accepted, its outcome will be in Data's results. *Error: refused in
// the server's words. Otherwise ErrUnavailable, ErrBusy or ErrNeedsUTF8: nothing is known about the recipient.
func (x *Transaction) Rcpt(a mailaddr.Address) error { return x.RcptFor(a, mailaddr.Address{}) }

// RcptFor is Rcpt for a recipient that the sender wrote differently, with a subaddress for instance: the server learns it as ORCPT
// (RFC 3461 §4.2) if it has DSN and the address is ASCII.
func (x *Transaction) RcptFor(a, original mailaddr.Address) error {
	if x.ended {
		return errors.New("deliver: Rcpt after the end of the transaction")
	}
	offered := RcptResult{Rcpt: a}
	if !original.IsNull() && original.IsASCII() && original.Key() != a.Key() {
		offered.original = original.String()
	}
	err := x.offer(&offered)
	if err == nil {
		x.rcpts = append(x.rcpts, offered)
	}
	x.t.m.offered.WithLabelValues(outcome(err)).Inc()
	return err
}

// Server is the address of the server that the recipients were accepted by, "" before.
func (x *Transaction) Server() string {
	if x.c == nil {
		return ""
	}
	return x.c.address
}

// Close ends a transaction whose message is not sent. It may be called after Data, and twice.
func (x *Transaction) Close() {
	if x.ended {
		return
	}
	c := x.c
	if c == nil {
		x.finish(false)
		return
	}
	c.SetDeadline(time.Now().Add(x.t.s.CommandTimeout))
	if _, err := c.Write([]byte("RSET\r\n")); err != nil {
		x.finish(false)
		return
	}
	c.owed++
	x.finish(true)
}

// finish gives the connection and the slot back. Keep: the connection is in no transaction.
func (x *Transaction) finish(keep bool) {
	x.ended = true
	x.drop(keep)
	if x.slot {
		x.slot = false
		x.t.release()
	}
}

func (x *Transaction) drop(keep bool) {
	c := x.c
	if c == nil {
		return
	}
	x.c = nil
	if !x.stop() || !keep { // the context ended: its deadline may still hit the connection
		c.close()
		return
	}
	c.SetDeadline(time.Time{})
	x.t.put(c)
}

// offer sends RCPT for a, over the connection of the transaction or over the first server that takes the
// transaction as it is so far. With a nil a it only makes sure that there is such a connection.
func (x *Transaction) offer(a *RcptResult) error {
	var last error
	if x.c != nil {
		if a == nil {
			return nil
		}
		code, lines, err := x.exchange(x.rcpt(a))
		if err == nil && code != 421 {
			return accepted(code, lines)
		}
		last = x.lost(err, code, lines)
	}
	if !x.slot {
		if err := x.t.acquire(x.ctx); err != nil {
			return err
		}
		x.slot = true
	}
	addresses, err := x.t.addresses(x.ctx)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		for !x.hasTried(address) && x.ctx.Err() == nil {
			c, err := x.t.get(x.ctx, address)
			if err != nil {
				last = err
				x.tried = append(x.tried, address)
				break
			}
			x.c = c
			x.stop = context.AfterFunc(x.ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
			answer, err := x.open(a)
			if err == nil {
				return answer
			}
			last = err
			if errors.Is(err, ErrNeedsUTF8) {
				x.drop(true)
				return err
			}
			reused := c.reused
			x.drop(false)
			if reused {
				x.t.dropIdle(address) // it was dead already; the server may be well: once more, afresh
				continue
			}
			x.t.failed(address, err)
			x.tried = append(x.tried, address)
		}
	}
	if x.ctx.Err() != nil {
		last = context.Cause(x.ctx)
	}
	if last == nil {
		last = errors.New("every server failed already")
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, last)
}

func (x *Transaction) hasTried(address string) bool {
	for _, a := range x.tried {
		if a == address {
			return true
		}
	}
	return false
}

// lost gives up a connection that failed, or answered 421, between commands.
func (x *Transaction) lost(err error, code int, lines []string) error {
	if err == nil {
		err = refusal(code, lines)
	}
	err = fmt.Errorf("%s: %w", x.c.address, err)
	x.t.failed(x.c.address, err)
	x.tried = append(x.tried, x.c.address)
	x.drop(false)
	return err
}

// open sends MAIL, the recipients accepted so far and a, in one write, and reads the replies. Its first
// result is the answer for a (or for MAIL), its second an error that calls for another connection.
func (x *Transaction) open(a *RcptResult) (answer, err error) {
	c := x.c
	if x.begun.IsZero() {
		x.begun = time.Now()
	}
	mail, err := x.mail()
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString(mail)
	b.WriteString("\r\n")
	for i := range x.rcpts {
		b.WriteString(x.rcpt(&x.rcpts[i]) + "\r\n")
	}
	if a != nil {
		b.WriteString(x.rcpt(a) + "\r\n")
	}
	x.deadline(x.t.s.CommandTimeout)
	if _, err := c.Write([]byte(b.String())); err != nil {
		return nil, fmt.Errorf("%s: %w", c.address, err)
	}
	if err := c.settle(); err != nil {
		return nil, fmt.Errorf("%s: %w", c.address, err)
	}
	code, lines, err := c.reply()
	if err == nil && code == 421 {
		err = refusal(code, lines)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.address, err)
	}
	mailAnswer := accepted(code, lines)
	for i := range x.rcpts {
		code, lines, err := c.reply()
		if err != nil || code == 421 {
			return nil, fmt.Errorf("%s: RCPT: %w", c.address, orRefusal(err, code, lines))
		}
		x.rcpts[i].Err = accepted(code, lines)
	}
	if a != nil {
		code, lines, err := c.reply()
		if err != nil || code == 421 {
			return nil, fmt.Errorf("%s: RCPT: %w", c.address, orRefusal(err, code, lines))
		}
		answer = accepted(code, lines)
	}
	if mailAnswer != nil {
		// No transaction came about: the answer to RCPT was a 503 that says nothing.
		if len(x.rcpts) > 0 {
			return nil, fmt.Errorf("%s: MAIL: %w", c.address, mailAnswer)
		}
		x.drop(true)
		return mailAnswer, nil
	}
	return answer, nil
}

// mail writes MAIL FROM with what the server has.
func (x *Transaction) mail() (string, error) {
	c, e := x.c, &x.env
	s := "MAIL FROM:" + e.From.Path()
	needs := e.UTF8 || !e.From.IsASCII()
	if needs && !c.utf8 {
		return "", fmt.Errorf("%s: %w", c.address, ErrNeedsUTF8)
	}
	if needs {
		s += " SMTPUTF8"
	}
	if c.eightBit && (e.EightBit || needs) {
		s += " BODY=8BITMIME"
	}
	if c.size && e.Size > 0 {
		s += " SIZE=" + strconv.FormatInt(e.Size, 10)
	}
	if c.dsn && e.EnvID != "" {
		s += " ENVID=" + xtext(e.EnvID)
		if e.Again {
			s += AgainMark
		}
	}
	return s, nil
}

// rcpt writes RCPT TO with what the server has.
func (x *Transaction) rcpt(r *RcptResult) string {
	s := "RCPT TO:" + r.Rcpt.Path()
	if x.c.dsn && r.original != "" {
		s += " ORCPT=rfc822;" + xtext(r.original)
	}
	return s
}

// xtext is RFC 3461 §4's encoding of a parameter's value.
func xtext(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= '!' && c <= '~' && c != '+' && c != '=' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "+%02X", c)
		}
	}
	return b.String()
}

func (x *Transaction) exchange(line string) (int, []string, error) {
	x.deadline(x.t.s.CommandTimeout)
	if _, err := x.c.Write([]byte(line + "\r\n")); err != nil {
		return 0, nil, err
	}
	return x.c.reply()
}

// deadline bounds the next step. It looks at the context last, so that its end is never covered up.
func (x *Transaction) deadline(d time.Duration) {
	x.c.SetDeadline(time.Now().Add(d))
	if x.ctx.Err() != nil {
		x.c.SetDeadline(time.Unix(1, 0))
	}
}

// accepted is nil for a 2yz reply and an *Error otherwise.
func accepted(code int, lines []string) error {
	if code/100 == 2 {
		return nil
	}
	return refusal(code, lines)
}

func orRefusal(err error, code int, lines []string) error {
	if err != nil {
		return err
	}
	return refusal(code, lines)
}
