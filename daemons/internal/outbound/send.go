package outbound

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"shoal/daemons/internal/mailaddr"
)

// perTransaction is how many recipients every server must take at once (RFC 5321 §4.5.3.1.8).
const perTransaction = 100

// chunk is how much of a message is written at once.
const chunk = 64 << 10

// Send delivers m to recipients of one domain. It never fails as a whole: the outcomes tell.
func (c *Client) Send(ctx context.Context, domain string, m *Message, rcpts []Rcpt) Result {
	begun := time.Now()
	key := c.Destination(domain)
	j := &job{c: c, ctx: ctx, m: m, rcpts: rcpts, out: make([]Outcome, len(rcpts)), domain: domain}
	for i := range rcpts {
		j.left = append(j.left, i)
	}
	away := j.run(key)
	for _, o := range j.out {
		switch {
		case o.Err == nil:
			c.m.recipients.WithLabelValues("ok").Inc()
		case o.Err.Permanent():
			c.m.recipients.WithLabelValues("refused").Inc()
		default:
			c.m.recipients.WithLabelValues("deferred").Inc()
		}
	}
	c.m.duration.Observe(time.Since(begun).Seconds())
	return Result{Outcomes: j.out, Away: away}
}

// job is one message to one destination.
type job struct {
	c      *Client
	ctx    context.Context
	m      *Message
	domain string
	rcpts  []Rcpt
	out    []Outcome
	left   []int // recipients without an outcome
	spoke  bool  // some server went as far as answering MAIL
}

// finish gives all that are left the same outcome.
func (j *job) finish(o Outcome) {
	for _, i := range j.left {
		j.out[i] = o
	}
	j.left = nil
}

// run tries the servers in turn. It returns whether the destination is away.
func (j *job) run(key string) bool {
	c := j.c
	for len(j.left) > 0 {
		x := c.take(key)
		if x == nil {
			break
		}
		// A connection that waited may be dead: what it answers with is not noted.
		_, _ = j.over(x)
	}
	if len(j.left) == 0 {
		return false
	}
	hosts, failed := c.hosts(j.ctx, j.domain)
	if failed != nil {
		j.finish(Outcome{Err: failed})
		return !failed.Permanent()
	}
	var last *Error  // the temporary failure to report
	var never *Error // a refusal for good, which counts only when nothing temporary happened
	at := ""
	note := func(host string, err error) {
		e := asError(err)
		if e.Permanent() && last == nil {
			never, at = e, host
		} else if !e.Permanent() {
			last, at = e, host
		}
	}
	tries := 0
	for _, h := range hosts {
		list, loop, failed := c.addresses(j.ctx, h, j.domain)
		if loop {
			if last == nil {
				note("", loops(j.domain))
			}
			break // RFC 5321 §5.1: what is not preferred to us is no use
		}
		if failed != nil {
			note("", failed)
			continue
		}
		for _, address := range list {
			if tries++; tries > maxTries || j.ctx.Err() != nil {
				break
			}
			x, err := c.connect(j.ctx, key, h.name, address)
			if err == nil {
				var host string
				if host, err = j.over(x); len(j.left) == 0 {
					return false
				}
				note(host, err)
				continue
			}
			note(h.name, err)
		}
	}
	if last == nil {
		last = never
	}
	if last == nil {
		last = own(451, "4.4.1", "No mail exchanger of %s could be tried", j.domain)
		if err := context.Cause(j.ctx); err != nil {
			last = own(451, "4.3.2", "The attempt was broken off: %v", err)
		}
	}
	j.finish(Outcome{Err: last, Host: at})
	return !j.spoke && !last.Permanent() && j.ctx.Err() == nil
}

func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return own(451, "4.4.2", "The connection failed: %v", err)
}

// over sends the message over one connection, in as many transactions as the recipients need, and gives the connection back. An error
// means that another server is to be tried for those that are left.
func (j *job) over(x *conn) (host string, err error) {
	c := j.c
	stop := context.AfterFunc(j.ctx, func() { x.SetDeadline(time.Unix(1, 0)) })
	if x.reused {
		c.m.reused.Inc()
	}
	for len(j.left) > 0 && err == nil {
		x.uses++
		err = j.transaction(x)
	}
	if !stop() || err != nil {
		x.drop()
		if err == nil {
			return x.host, nil
		}
		var e *Error
		if !errors.As(err, &e) {
			err = own(451, "4.4.2", "The connection to %s failed: %v", x.host, err)
		}
		return x.host, err
	}
	x.SetDeadline(time.Time{})
	c.put(x)
	return x.host, nil
}

// transaction offers the message to one server for at most perTransaction of the recipients left, and notes their outcomes.
func (j *job) transaction(x *conn) error {
	c := j.c
	batch := append([]int(nil), j.left[:min(len(j.left), perTransaction)]...)
	settle := func(o Outcome) { // for those of the batch that are open still
		o.Host = x.host
		for _, i := range batch {
			if j.out[i].Host == "" {
				j.out[i] = o
			}
		}
		j.left = j.left[len(batch):]
	}
	lines, asked, unfit := j.commands(x, batch)
	if unfit != nil || len(asked) == 0 {
		j.spoke = true
		settle(Outcome{Err: unfit})
		return nil
	}
	// The commands go out in one write, or one by one.
	var replies []*Error
	for len(replies) < len(lines) {
		n := 1
		if x.pipelining {
			n = min(len(lines)-len(replies), 50)
		}
		x.deadline(j.ctx, c.s.CommandTimeout)
		if _, err := x.Write([]byte(strings.Join(lines[len(replies):len(replies)+n], ""))); err != nil {
			return err
		}
		if err := x.settle(); err != nil {
			return err
		}
		for range n {
			x.deadline(j.ctx, c.s.CommandTimeout)
			code, text, err := x.reply()
			if err != nil {
				return err
			}
			if code == 421 {
				return refusal(code, text)
			}
			var refused *Error
			if code/100 != 2 {
				refused = refusal(code, text)
			}
			replies = append(replies, refused)
		}
		if replies[0] != nil && n == 1 {
			break
		}
	}
	j.spoke = true
	if replies[0] != nil {
		settle(Outcome{Err: replies[0]})
		return j.reset(x)
	}
	accepted := 0
	for k, i := range asked {
		e := replies[k+1]
		if e == nil {
			accepted++
			continue
		}
		if e.Code == 552 { // RFC 5321 §4.5.3.1.10: too many recipients, in old servers' words
			e = &Error{Code: 452, Status: "4.5.3", Text: e.Text}
		}
		j.out[i] = Outcome{Err: e, Host: x.host}
	}
	if accepted == 0 {
		settle(Outcome{})
		return j.reset(x)
	}
	x.deadline(j.ctx, c.s.CommandTimeout)
	code, text, err := x.command("DATA")
	if err != nil {
		return j.again(batch, err)
	}
	if code != 354 {
		if code == 421 {
			return j.again(batch, refusal(code, text))
		}
		settle(Outcome{Err: refusal(code, text)})
		return j.reset(x)
	}
	sent, err := j.content(x)
	if err != nil {
		var e *Error
		switch {
		case errors.As(err, &e): // it cannot be read: no other server helps
			settle(Outcome{Err: e})
			return err
		case !sent:
			return j.again(batch, err)
		}
		settle(Outcome{Err: own(451, "4.4.2", "The connection broke after the message was sent: it may have been taken, and will be sent again")})
		return err
	}
	x.deadline(j.ctx, c.s.FinalTimeout)
	if code, text, err = x.reply(); err != nil {
		settle(Outcome{Err: own(451, "4.4.2", "No answer came after the message was sent: it may have been taken, and will be sent again")})
		return err
	}
	if code/100 != 2 {
		settle(Outcome{Err: refusal(code, text)})
		if code == 421 {
			return refusal(code, text)
		}
		return nil
	}
	settle(Outcome{Text: clean(strconv.Itoa(code) + " " + strings.Join(text, " ")), DSN: x.dsn})
	return nil
}

// again forgets what a server said about the recipients before it failed: the next one is asked anew.
func (j *job) again(batch []int, err error) error {
	for _, i := range batch {
		j.out[i] = Outcome{}
	}
	return err
}

// reset ends a transaction without a message; its answer is read when the connection is used again.
func (j *job) reset(x *conn) error {
	x.deadline(j.ctx, j.c.s.CommandTimeout)
	if _, err := x.Write([]byte("RSET\r\n")); err != nil {
		x.uses = j.c.s.MaxUses
		return nil // the outcomes stand
	}
	x.owed++
	return nil
}

// commands makes MAIL and, for the recipients asked, RCPT with what the server has; the outcome of one that it cannot be asked for is
// noted. unfit: it cannot take this message at all.
func (j *job) commands(x *conn, batch []int) (lines []string, asked []int, unfit *Error) {
	m := j.m
	if x.maxSize > 0 && m.Size > x.maxSize {
		return nil, nil, own(552, "5.3.4", "%s takes messages of at most %d bytes, and this one has %d", x.host, x.maxSize, m.Size)
	}
	if !x.utf8 && m.UTF8 {
		if yes, err := has8bit(m.Open(), true); err != nil {
			return nil, nil, unreadable(err)
		} else if yes {
			return nil, nil, own(550, "5.6.7", "The message needs SMTPUTF8, which %s does not have", x.host)
		}
	}
	if !x.eightBit && m.Body != "7BIT" {
		if yes, err := has8bit(m.Open(), false); err != nil {
			return nil, nil, unreadable(err)
		} else if yes && x.extended {
			return nil, nil, own(554, "5.6.3", "The message holds 8-bit text, which %s does not take (no 8BITMIME)", x.host)
		}
	}
	from, ok := path(m.From, x.utf8)
	if !ok {
		return nil, nil, own(553, "5.6.7", "The sender's address needs SMTPUTF8, which %s does not have", x.host)
	}
	line := "MAIL FROM:" + from
	if x.size && m.Size > 0 {
		line += " SIZE=" + strconv.FormatInt(m.Size, 10)
	}
	if x.eightBit && m.Body != "7BIT" {
		line += " BODY=8BITMIME"
	}
	if x.utf8 && (m.UTF8 || j.needsUTF8(batch)) {
		line += " SMTPUTF8"
	}
	if x.dsn {
		if safe(m.Return) {
			line += " RET=" + m.Return
		}
		if safe(m.EnvID) {
			line += " ENVID=" + m.EnvID
		}
	}
	lines = append(lines, line+"\r\n")
	for _, i := range batch {
		r := j.rcpts[i]
		to, ok := path(r.Address, x.utf8)
		if !ok {
			j.out[i] = Outcome{Host: x.host, Err: own(553, "5.6.7", "The recipient's address needs SMTPUTF8, which %s does not have", x.host)}
			continue
		}
		line := "RCPT TO:" + to
		if x.dsn {
			if safe(r.Notify) {
				line += " NOTIFY=" + r.Notify
			}
			if safe(r.ORcpt) {
				line += " ORCPT=" + r.ORcpt
			}
		}
		lines, asked = append(lines, line+"\r\n"), append(asked, i)
	}
	return lines, asked, nil
}

func unreadable(err error) *Error {
	return own(451, "4.3.0", "The queued message cannot be read: %v", err)
}

func (j *job) needsUTF8(batch []int) bool {
	if !j.m.From.IsASCII() {
		return true
	}
	for _, i := range batch {
		if !j.rcpts[i].Address.IsASCII() {
			return true
		}
	}
	return false
}

// path writes an address for a server; without SMTPUTF8 its domain as A-labels.
func path(a mailaddr.Address, utf8 bool) (string, bool) {
	if !utf8 && !a.IsASCII() {
		a.Domain = mailaddr.DomainKey(a.Domain)
	}
	return a.Path(), utf8 || a.IsASCII()
}

// safe tells whether a parameter's value can stand in a command (RFC 5321 §4.1.2, esmtp-value).
func safe(s string) bool {
	if s == "" || len(s) > 600 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '=' {
			return false
		}
	}
	return true
}

// content sends the message. sent: its last octet was given to the network, so it may have arrived.
func (j *job) content(x *conn) (sent bool, err error) {
	r := j.m.Open()
	b := body{bol: true}
	buf := make([]byte, chunk)
	for {
		n, err := r.Read(buf)
		b.add(buf[:n])
		if err != nil && err != io.EOF {
			return false, unreadable(err)
		}
		if err == io.EOF {
			b.end()
		}
		if len(b.out) >= chunk || err == io.EOF {
			x.deadline(j.ctx, j.c.s.DataTimeout)
			if _, werr := x.Write(b.out); werr != nil {
				// What is left of a write that failed is never the end alone where TLS or more than it was to be written;
				// it is taken for sent all the same, to be on the safe side.
				return err == io.EOF, werr
			}
			b.out = b.out[:0]
		}
		if err == io.EOF {
			return true, nil
		}
	}
}
