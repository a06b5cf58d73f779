package smtpsession

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"shoal/daemons/internal/deliver"
)

// Data passes the message on to the box and words its answers as one reply.
func (s *session) Data(r io.Reader) error {
	tx := s.tx
	if tx == nil || len(tx.rcpts) == 0 {
		return reply(503, 5, 5, 1, "No recipient was accepted")
	}
	counted := &counter{r: r}
	done, err := s.send(tx, counted)
	s.log(tx, counted.n, done, err)
	if err != nil {
		return err
	}
	return reply(250, 2, 0, 0, done+", id "+tx.trace)
}

// What the 250 says of a message.
const (
	saidDelivered = "Delivered"
	saidQueued    = "Queued"
)

// send reads the header, puts ours in front, and streams the message to the box or into the queue. It returns what has become of it. Its
// error is a reply, or an error of the reader.
func (s *session) send(tx *transaction, r io.Reader) (string, error) {
	raw, end, ok, err := readHeader(r, int(s.s.o.Limits.MaxHeader))
	if err != nil {
		return "", err
	}
	if !ok {
		return "", reply(552, 5, 3, 4, fmt.Sprintf("The header is larger than %d bytes", int64(s.s.o.Limits.MaxHeader)))
	}
	var h header
	h.scan(raw[:end], s.s.o.Hostname, tx.rcpts)
	switch {
	case h.hops > s.s.o.Limits.MaxHops:
		return "", reply(554, 5, 4, 6, "Too many hops: the message seems to go in circles")
	case h.own > s.s.o.Limits.MaxOwnHops:
		return "", reply(554, 5, 4, 6, "The message has been here too often: it goes in circles")
	case h.looped && !s.s.o.Submission:
		return "", reply(554, 5, 4, 6, "The message was delivered to this mailbox before: it goes in circles")
	}
	var front bytes.Buffer
	s.received(&front, tx)
	if s.s.o.Submission {
		s.complete(&front, tx, &h)
	}
	if end == 0 && len(raw) > 0 && !bytes.HasPrefix(raw, []byte("\r\n")) && raw[0] != '\n' {
		front.WriteString("\r\n") // the message has no header: this is the body, and stays apart from our fields
	}
	whole := io.MultiReader(&front, bytes.NewReader(raw), r)
	if s.s.o.Relay {
		return saidQueued, s.enqueue(tx, whole, tx.rcpts)
	}
	if s.s.o.Queue != nil {
		if tx.queueAll() {
			return saidQueued, s.enqueue(tx, whole, tx.rcpts)
		}
		k := &keeper{r: whole, total: &s.s.kept}
		defer k.free()
		return s.cutThrough(tx, k)
	}
	results, err := tx.out.Data(whole)
	if err != nil {
		return "", s.dataError(tx, err)
	}
	return saidDelivered, s.combine(tx, results)
}

// dataError words an error of the message as a whole.
func (s *session) dataError(tx *transaction, err error) error {
	var violation *smtp.SMTPError
	switch {
	case errors.As(err, &violation), errors.Is(err, deliver.ErrAborted):
		return err
	case errors.Is(err, deliver.ErrBareLine):
		return reply(550, 5, 6, 11, "The message holds a CR or LF that stands alone")
	}
	return s.refusal(tx, err)
}

// combine makes one reply of the box's answers; nil when all have the message.
func (s *session) combine(tx *transaction, results []deliver.RcptResult) error {
	var first error
	delivered, refused := 0, 0
	for _, r := range results {
		if r.Err == nil {
			delivered++
			continue
		}
		err := s.refusal(tx, r.Err)
		if class(err) == "refused" {
			refused++
		}
		if first == nil {
			first = err
		}
		s.event(slog.LevelWarn, "rcpt_refused", tx.trace, tx.from, slog.String("rcpt", r.Rcpt.String()), slog.Any("error", r.Err))
	}
	switch {
	case delivered == len(results):
		return nil
	case refused == len(results), delivered == 0 && refused == 0:
		return first
	}
	return reply(451, 4, 3, 0, "Not all recipients could be served, try again later")
}

func (s *session) log(tx *transaction, size int64, done string, err error) {
	event, level, result := "accepted", slog.LevelInfo, class(err)
	if done == saidQueued {
		event = "queued"
	}
	switch result {
	case "refused":
		event = "message_refused"
	case "deferred":
		event, level = "message_deferred", slog.LevelWarn
	default:
		s.s.m.bytes.WithLabelValues(s.s.o.Listener).Add(float64(size))
	}
	s.s.m.messages.WithLabelValues(s.s.o.Listener, result).Inc()
	s.s.m.duration.WithLabelValues(s.s.o.Listener).Observe(time.Since(tx.begun).Seconds())
	rcpts := make([]string, len(tx.rcpts))
	for i, r := range tx.rcpts {
		rcpts[i] = r.as.String()
	}
	attrs := []slog.Attr{slog.Any("rcpts", rcpts), slog.Int64("size", size), slog.Duration("took", time.Since(tx.begun))}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	s.event(level, event, tx.trace, tx.from, attrs...)
}

// received writes the trace field. The name that the client gave itself holds no character that could
// end or nest a comment: the guard has seen to that.
func (s *session) received(b *bytes.Buffer, tx *transaction) {
	fmt.Fprintf(b, "Received: from %s ([%s])", s.c.Hello(), literal(s.remote()))
	if state := s.c.TLS(); state != nil {
		fmt.Fprintf(b, "\r\n\t(using %s with cipher %s)", strings.ReplaceAll(tls.VersionName(state.Version), " ", ""), tls.CipherSuiteName(state.CipherSuite))
	}
	fmt.Fprintf(b, "\r\n\tby %s with %s id %s", s.s.o.Hostname, s.protocol(tx), tx.trace)
	if len(tx.rcpts) == 1 {
		fmt.Fprintf(b, "\r\n\tfor %s", tx.rcpts[0].as.Path())
	}
	fmt.Fprintf(b, "; %s\r\n", s.s.o.Clock.Now().Format(dateFormat))
}

// dateFormat is RFC 5322 §3.3's date-time.
const dateFormat = "Mon, 02 Jan 2006 15:04:05 -0700"

// literal gives an address as RFC 5321 §4.1.3 writes it, without the brackets.
func literal(ip string) string {
	if strings.Contains(ip, ":") {
		return "IPv6:" + ip
	}
	return ip
}

// protocol: RFC 3848 §2, RFC 6531 §4.3.
func (s *session) protocol(tx *transaction) string {
	p := "SMTP"
	if s.s.o.Relay {
		if tx.utf8 {
			return "UTF8LMTPS"
		}
		return "LMTPS"
	}
	if s.c.Extended() {
		p = "ESMTP"
	}
	if tx.utf8 {
		p = "UTF8SMTP"
	}
	if !s.c.Extended() {
		return p
	}
	if s.c.TLS() != nil {
		p += "S"
	}
	if s.account != nil {
		p += "A"
	}
	return p
}

// complete adds what RFC 6409 §8 lets a submission server add: Date and Message-ID where they are missing.
func (s *session) complete(b *bytes.Buffer, tx *transaction, h *header) {
	if !h.hasDate {
		fmt.Fprintf(b, "Date: %s\r\n", s.s.o.Clock.Now().Format(dateFormat))
	}
	if !h.hasID {
		fmt.Fprintf(b, "Message-ID: <%s@%s>\r\n", tx.trace, s.s.o.Hostname)
	}
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
