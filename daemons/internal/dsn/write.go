package dsn

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

const dateFormat = "Mon, 02 Jan 2006 15:04:05 -0700"

// Write makes the message of a report. ErrNoSender, or an error of reading the original.
func Write(r *Report) (*Message, error) {
	if r.Sender == "" || r.Sender == "<>" {
		return nil, ErrNoSender
	}
	if len(r.Recipients) == 0 {
		return nil, fmt.Errorf("dsn: a report about nobody")
	}
	orig, err := readOriginal(r)
	if err != nil {
		return nil, fmt.Errorf("dsn: reading the message: %w", err)
	}
	w := &writer{r: r, orig: orig}
	w.utf8 = r.UTF8 && (!isASCII(r.Sender) || orig.utf8Header || w.anyUTF8Recipient())
	kind := w.kind()
	boundary := w.boundary()

	human := w.human(kind)
	status := w.status()

	w.field("From", "Mail Delivery System <MAILER-DAEMON@"+w.ascii(r.Host)+">")
	w.field("To", "<"+w.address(r.Sender)+">")
	w.field("Subject", subjects[kind])
	w.field("Date", r.Now.Format(dateFormat))
	w.field("Message-ID", "<"+clean(r.ID)+"@"+w.ascii(r.Host)+">")
	if orig.messageID != "" {
		w.field("In-Reply-To", orig.messageID)
		w.field("References", orig.messageID)
	}
	w.field("Auto-Submitted", "auto-replied") // RFC 3834 §3.1.7
	w.field("Precedence", "bulk")             // for vacation programs that know nothing newer
	w.field("MIME-Version", "1.0")
	w.line("Content-Type: multipart/report; report-type=delivery-status;")
	w.line("\tboundary=\"" + boundary + "\"")
	eightBit := !isASCII(human) || !isASCII(status) || !isASCII(string(orig.data)) || w.utf8
	if eightBit {
		w.field("Content-Transfer-Encoding", "8bit")
	}
	w.line("")
	w.line("This is a delivery status notification in MIME form (RFC 3464).")

	w.line("")
	w.line("--" + boundary)
	w.field("Content-Description", "Notification")
	if isASCII(human) {
		w.field("Content-Type", "text/plain; charset=us-ascii")
	} else {
		w.field("Content-Type", "text/plain; charset=utf-8")
		w.field("Content-Transfer-Encoding", "8bit")
	}
	w.line("")
	w.b.WriteString(human)

	w.line("")
	w.line("--" + boundary)
	w.field("Content-Description", "Delivery report")
	if w.utf8 {
		w.field("Content-Type", "message/global-delivery-status")
		w.field("Content-Transfer-Encoding", "8bit")
	} else {
		w.field("Content-Type", "message/delivery-status")
	}
	w.line("")
	w.b.WriteString(status)

	w.line("")
	w.line("--" + boundary)
	w.original()
	w.line("")
	w.line("--" + boundary + "--")
	return &Message{Data: w.b.Bytes(), UTF8: w.utf8, EightBit: eightBit}, nil
}

type writer struct {
	r    *Report
	orig *original
	utf8 bool
	b    bytes.Buffer
}

func (w *writer) line(s string) { w.b.WriteString(s + "\r\n") }

// field writes a field whose value holds no line end.
func (w *writer) field(name, value string) { writeField(&w.b, name, value) }

func writeField(b interface{ WriteString(string) (int, error) }, name, value string) {
	value = clean(value)
	room := maxLine - len(name) - 2
	if len(value) > room {
		value = cut(value, room)
	}
	b.WriteString(name + ": " + value + "\r\n")
}

func (w *writer) anyUTF8Recipient() bool {
	for _, rc := range w.r.Recipients {
		if !isASCII(rc.Address) {
			return true
		}
	}
	return false
}

// kind is the worst of what is reported.
func (w *writer) kind() Action {
	order := map[Action]int{Failed: 4, Delayed: 3, Expanded: 2, Relayed: 1, Delivered: 0}
	kind := Delivered
	for _, rc := range w.r.Recipients {
		if order[rc.Action] > order[kind] {
			kind = rc.Action
		}
	}
	return kind
}

// boundary occurs nowhere in the message: its characters are counted up until that is so.
func (w *writer) boundary() string {
	id := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, cut(w.r.ID, 50))
	for i := 0; ; i++ {
		b := fmt.Sprintf("=_%s.%d", id, i)
		if !bytes.Contains(w.orig.data, []byte(b)) {
			return b
		}
	}
}

// original writes the third part.
func (w *writer) original() {
	o := w.orig
	kind := "text/rfc822-headers"
	what := "Header of the message"
	if o.full {
		kind, what = "message/rfc822", "The message"
	}
	if w.utf8 && o.utf8Header { // RFC 6533 §6
		kind = "message/global-headers"
		if o.full {
			kind = "message/global"
		}
	}
	w.field("Content-Description", what)
	w.field("Content-Type", kind)
	if !isASCII(string(o.data)) {
		w.field("Content-Transfer-Encoding", "8bit")
	}
	w.line("")
	w.b.Write(o.data)
}

// status writes the body of message/delivery-status (RFC 3464 §2.1):
//
//	per-message-fields 1*( CRLF per-recipient-fields )
func (w *writer) status() string {
	var b strings.Builder
	r := w.r
	if r.EnvID != "" {
		writeField(&b, "Original-Envelope-Id", w.text(unxtext(r.EnvID)))
	}
	writeField(&b, "Reporting-MTA", "dns; "+w.ascii(r.Host))
	if !r.Accepted.IsZero() {
		writeField(&b, "Arrival-Date", r.Accepted.Format(dateFormat))
	}
	if r.Trace != "" {
		writeField(&b, "X-Shoal-Trace", w.ascii(r.Trace))
	}
	for i := range r.Recipients {
		rc := &r.Recipients[i]
		b.WriteString("\r\n")
		if kind, value, ok := strings.Cut(rc.Original, ";"); ok && kind != "" {
			kind = strings.ToLower(strings.TrimSpace(kind))
			value = strings.TrimSpace(value)
			if kind != "utf-8" { // utf-8-addr-xtext keeps its form; everything else is plain xtext
				value = w.text(unxtext(value))
			}
			writeField(&b, "Original-Recipient", w.ascii(kind)+"; "+w.text(value))
		}
		if isASCII(rc.Address) {
			writeField(&b, "Final-Recipient", "rfc822; "+rc.Address)
		} else {
			writeField(&b, "Final-Recipient", "utf-8; "+w.address(rc.Address))
		}
		writeField(&b, "Action", string(rc.Action))
		writeField(&b, "Status", rc.status())
		if rc.RemoteMTA != "" {
			writeField(&b, "Remote-MTA", "dns; "+w.ascii(rc.RemoteMTA))
		}
		if rc.Answer != "" {
			writeField(&b, "Diagnostic-Code", "smtp; "+w.text(rc.Answer))
		} else if rc.Reason != "" {
			writeField(&b, "Diagnostic-Code", "X-Shoal; "+w.text(rc.Reason))
		}
		if !rc.Tried.IsZero() {
			writeField(&b, "Last-Attempt-Date", rc.Tried.Format(dateFormat))
		}
		if rc.Action == Delayed && !rc.Until.IsZero() {
			writeField(&b, "Will-Retry-Until", rc.Until.Format(dateFormat))
		}
	}
	return b.String()
}

// status is the code of a recipient, of the class that its action demands (RFC 3464 §2.3.4).
func (rc *Recipient) status() string {
	class, general := "2", "2.0.0"
	switch rc.Action {
	case Failed:
		class, general = "5", "5.0.0"
	case Delayed:
		class, general = "4", "4.0.0"
	}
	parts := strings.Split(rc.Status, ".")
	if len(parts) != 3 || len(rc.Status) > 9 {
		return general
	}
	for _, p := range parts {
		if p == "" || strings.Trim(p, "0123456789") != "" {
			return general
		}
	}
	if parts[0] == class {
		return rc.Status
	}
	if rc.Action == Failed && parts[0] == "4" {
		return rc.Status // given up after a temporary failure: the cause says more than 5.4.7
	}
	return general
}

// until words a date for people.
func until(t time.Time) string { return t.Format("2 January 2006 15:04 -0700") }
