package filter

import (
	"bytes"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"strings"
	"unicode/utf8"

	"shoal/daemons/internal/sieve"
)

// dateFormat is RFC 5322 §3.3's date-time.
const dateFormat = "Mon, 02 Jan 2006 15:04:05 -0700"

// composer writes a message.
type composer struct{ b bytes.Buffer }

// field writes a header field, folded at blanks. Control characters are left out: nothing can end the field.
func (c *composer) field(name, value string) {
	value = strings.Map(noControl, value)
	if value == "" {
		return
	}
	c.b.WriteString(name + ":")
	column := len(name) + 1
	for word := range strings.FieldsSeq(value) {
		if column > len(name)+1 && column+1+len(word) > 78 {
			c.b.WriteString("\r\n")
			column = 0
		}
		c.b.WriteString(" " + word)
		column += 1 + len(word)
	}
	c.b.WriteString("\r\n")
}

func noControl(r rune) rune {
	if r < ' ' || r == 0x7f {
		return -1
	}
	return r
}

// text writes a header field of free text, folded and encoded as needed.
func (c *composer) text(name, value string) {
	value = strings.Join(strings.Fields(strings.ToValidUTF8(value, "?")), " ")
	if len(value) > 600 {
		value = strings.ToValidUTF8(value[:600], "")
	}
	c.field(name, mime.QEncoding.Encode("utf-8", value))
}

// from writes From and To.
func (c *composer) from(header, own string) {
	if header == "" {
		header = own
	}
	// The script's address was checked; its display name may hold anything.
	if i := strings.LastIndexByte(header, '<'); i > 0 && !isASCII(header[:i]) {
		header = mime.QEncoding.Encode("utf-8", strings.Trim(strings.TrimSpace(header[:i]), `"`)) + " " + header[i:]
	}
	c.field("From", header)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// body ends the header and writes plain text.
func (c *composer) body(text string) {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	c.b.WriteString("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
	w := quotedprintable.NewWriter(&c.b)
	_, _ = w.Write([]byte(strings.ReplaceAll(text, "\n", "\r\n"))) // into memory
	_ = w.Close()
	if !bytes.HasSuffix(c.b.Bytes(), []byte("\n")) {
		c.b.WriteString("\r\n")
	}
}

// begin writes the fields that every message has.
func (x *execution) begin(c *composer, kind string) {
	now := x.f.o.Clock.Now()
	c.field("Date", now.Format(dateFormat))
	c.field("Message-ID", fmt.Sprintf("<%s.%s@%s>", kind, keyOf(kind, x.d.Trace, x.d.Account.ID, now.String())[:20], x.f.o.Hostname))
}

// vacation writes a reply: RFC 5230 §5, RFC 3834 §3.1.
func (x *execution) vacation(v *sieve.Vacation) string {
	var c composer
	x.begin(&c, "vacation")
	c.from(v.From, x.d.Account.Address)
	c.field("To", v.To.String())
	c.text("Subject", v.Subject)
	c.field("In-Reply-To", v.InReplyTo)
	c.field("References", v.References)
	c.field("Auto-Submitted", "auto-replied (vacation)")
	c.field("Precedence", "bulk")
	if v.MIME { // the reason brings its own MIME header fields
		c.b.WriteString("MIME-Version: 1.0\r\n")
		c.b.WriteString(strings.ReplaceAll(strings.ReplaceAll(v.Reason, "\r\n", "\n"), "\n", "\r\n"))
		return c.b.String()
	}
	c.body(v.Reason)
	return c.b.String()
}

// protectedFields are not taken from a notification's URI (RFC 5436 §2.7).
var protectedFields = map[string]bool{"from": true, "to": true, "cc": true, "bcc": true, "date": true, "message-id": true, "subject": true,
	"received": true, "return-path": true, "auto-submitted": true, "mime-version": true, "content-type": true,
	"content-transfer-encoding": true, "sender": true, "reply-to": true, "in-reply-to": true, "references": true, "delivered-to": true}

// notification writes a short message about the one that came: RFC 5436 §2.7.
func (x *execution) notification(n *sieve.Notify) string {
	var c composer
	x.begin(&c, "notify")
	c.from(n.From, x.d.Account.Address)
	var to []string
	for _, a := range n.To {
		to = append(to, a.String())
	}
	c.field("To", strings.Join(to, ", "))
	subject := n.Message
	for _, f := range n.Fields {
		if f[0] == "subject" {
			subject = f[1]
		}
	}
	if subject == "" {
		subject = "New mail for " + x.d.Account.Address
	}
	c.text("Subject", subject)
	c.field("Auto-Submitted", `auto-notified; owner-email="`+x.d.Account.Address+`"`)
	switch n.Importance {
	case 1:
		c.field("Importance", "high")
	case 3:
		c.field("Importance", "low")
	}
	for _, f := range n.Fields {
		if !protectedFields[f[0]] && !strings.HasPrefix(f[0], "resent-") && !strings.HasPrefix(f[0], "list-") {
			c.text(f[0], f[1])
		}
	}
	body := n.Body
	if body == "" {
		body = n.Message
	}
	if body == "" {
		body = "A message from " + x.d.From.Path() + " has come."
	}
	c.body(body)
	return c.b.String()
}

// brokenScript writes what the owner of a script that failed finds in the INBOX.
func (x *execution) brokenScript(broken error) string {
	var c composer
	x.begin(&c, "sieve")
	c.field("From", "Mail filter <postmaster@"+x.d.Account.Domain+">")
	c.field("To", x.d.Account.Address)
	c.field("Subject", "Your mail filter does not work")
	c.field("Auto-Submitted", "auto-generated")
	c.body(fmt.Sprintf(`Your mail filter failed when a message came:

    %v

The message was put into your INBOX, and so are all others until the filter
is mended: nothing is lost. You are told of this mistake once a day.
`, broken))
	return c.b.String()
}

// refusal writes what tells the sender why the message was refused, in words that an SMTP reply cannot carry: RFC 5429 §2.2, as a
// disposition notification (RFC 8098 §3).
func (x *execution) refusal(a *sieve.Reject) string {
	const boundary = "refusal"
	var c composer
	x.begin(&c, "reject")
	c.from("", x.d.Account.Address)
	c.field("To", x.d.From.String())
	c.field("Subject", "Your message was refused")
	c.field("Auto-Submitted", "auto-replied (rejected)")
	c.field("MIME-Version", "1.0")
	c.field("Content-Type", `multipart/report; report-type=disposition-notification; boundary="`+boundary+`"`)
	c.b.WriteString("\r\n--" + boundary + "\r\n")
	c.body(a.Reason)
	c.b.WriteString("\r\n--" + boundary + "\r\nContent-Type: message/disposition-notification\r\n\r\n")
	c.field("Reporting-UA", x.f.o.Hostname+"; Shoal Sieve")
	c.field("Final-Recipient", "rfc822; "+x.d.Account.Address)
	c.field("Original-Message-ID", x.messageID())
	c.field("Disposition", "automatic-action/MDN-sent-automatically; deleted")
	c.b.WriteString("\r\n--" + boundary + "--\r\n")
	return c.b.String()
}

// messageID is the Message-ID of the message; empty: it has none, or one far down.
func (x *execution) messageID() string {
	b := make([]byte, 16<<10)
	n, _ := x.file.ReadAt(b, 0) // what cannot be read has no id
	for line := range bytes.Lines(b[:n]) {
		text := strings.TrimSpace(string(line))
		if text == "" {
			break
		}
		if name, value, ok := strings.Cut(text, ":"); ok && strings.EqualFold(name, "Message-ID") {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
