package dsn

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/message"
)

var update = flag.Bool("update", false, "write the golden files anew")

var at = time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))

const plain = "Received: from a by b; Wed, 04 Mar 2026 05:00:00 +0100\r\n" +
	"From: Alice <alice@example.test>\r\nTo: bob@far.test\r\nSubject: The plan for\r\n Friday\r\nMessage-ID: <m1@example.test>\r\n\r\n" +
	"Hello Bob,\r\n.dot\r\n"

func report(original string, rcpts ...Recipient) *Report {
	return &Report{ID: "t1.switch1", Host: "mx1.example.test", Sender: "alice@example.test", EnvID: "q+2B7", Trace: "abc123",
		Accepted: at.Add(-time.Hour), Now: at, Recipients: rcpts, Original: strings.NewReader(original), Size: int64(len(original))}
}

func failed(address string) Recipient {
	return Recipient{Address: address, Original: "rfc822;Bob+2Bx@far.test", Action: Failed, Status: "5.1.1", Reason: "The other side refused the recipient.",
		Answer: "550 5.1.1 no such user", RemoteMTA: "mx.far.test", Tried: at.Add(-time.Second)}
}

// parsed is a report read back with the standard library.
type parsed struct {
	header mail.Header
	types  []string
	parts  []string
	fields []textproto.MIMEHeader // per-message, then per-recipient
}

// read takes a report apart, strictly, and once more with package message, which must find the same.
func read(t *testing.T, m *Message) parsed {
	t.Helper()
	for i, l := range bytes.Split(m.Data, []byte("\n")) {
		l, had := bytes.CutSuffix(l, []byte("\r"))
		if !had && len(l) > 0 || bytes.ContainsAny(l, "\r\x00") || len(l) > 998 {
			t.Fatalf("line %d is not one of mail: %q", i+1, l)
		}
	}
	msg, err := mail.ReadMessage(bytes.NewReader(m.Data))
	if err != nil {
		t.Fatalf("not a message: %v\n%s", err, m.Data)
	}
	kind, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatalf("type %q %v %v", kind, params, err)
	}
	p := parsed{header: msg.Header}
	mr := multipart.NewReader(msg.Body, params["boundary"])
	for {
		part, err := mr.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("part %d: %v\n%s", len(p.parts), err, m.Data)
		}
		b, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		p.types = append(p.types, part.Header.Get("Content-Type"))
		p.parts = append(p.parts, string(b))
	}
	if len(p.parts) != 3 {
		t.Fatalf("%d parts: %q\n%s", len(p.parts), p.types, m.Data)
	}
	tp := textproto.NewReader(bufio.NewReader(strings.NewReader(p.parts[1] + "\r\n")))
	for {
		h, err := tp.ReadMIMEHeader()
		if len(h) > 0 {
			p.fields = append(p.fields, h)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("fields: %v in %q", err, p.parts[1])
		}
	}

	tree, err := message.Parse(bytes.NewReader(m.Data), int64(len(m.Data)), message.DefaultLimits())
	if err != nil || len(tree.Children) != 3 {
		t.Fatalf("package message finds %v, %v", tree, err)
	}
	for i, c := range tree.Children {
		if got := string(m.Data[c.BodyOffset:c.End]); got != p.parts[i] {
			t.Errorf("package message reads part %d as %q, the standard library as %q", i, got, p.parts[i])
		}
	}
	if m.EightBit != !isASCII(string(m.Data)) && !m.UTF8 {
		t.Errorf("EightBit is %v", m.EightBit)
	}
	return p
}

func write(t *testing.T, r *Report) *Message {
	t.Helper()
	m, err := Write(r)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestGolden(t *testing.T) {
	delayed := Recipient{Address: "carol@slow.test", Action: Delayed, Status: "4.4.1", Reason: "The other side cannot be reached: connection timed out.",
		Tried: at, Until: at.Add(96 * time.Hour)}
	utf8Mail := strings.Replace(plain, "The plan", "Der Plan für", 1)
	cases := map[string]*Report{
		"failed":    report(plain, failed("bob@far.test")),
		"delayed":   report(plain, delayed),
		"mixed":     report(plain, failed("bob@far.test"), delayed, Recipient{Address: "dave@example.test", Action: Delivered, Status: "2.1.5"}),
		"delivered": report(plain, Recipient{Address: "dave@example.test", Action: Delivered, Status: "2.1.5", Tried: at}),
		"relayed":   report(plain, Recipient{Address: "eve@far.test", Action: Relayed, RemoteMTA: "mx.far.test", Answer: "250 2.0.0 queued", Tried: at}),
		"expanded":  report(plain, Recipient{Address: "team@example.test", Action: Expanded}),
		"headers":   report(plain, failed("bob@far.test")),
		"nothing":   report("", failed("bob@far.test")),
		"global":    report(utf8Mail, failed("björn@fär.test")),
		"ascii":     report(utf8Mail, failed("björn@fär.test")),
	}
	cases["headers"].Return = "HDRS"
	cases["global"].UTF8 = true
	for name, r := range cases {
		t.Run(name, func(t *testing.T) {
			m := write(t, r)
			read(t, m)
			path := filepath.Join("testdata", name+".eml")
			if *update {
				if err := os.WriteFile(path, m.Data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, m.Data) {
				t.Errorf("differs from %s:\n%s", path, m.Data)
			}
		})
	}
}

// RFC 3464 §2: the fields that a program reads.
func TestFields(t *testing.T) {
	p := read(t, write(t, report(plain, failed("bob@far.test"))))
	if len(p.fields) != 2 {
		t.Fatalf("%d blocks of fields", len(p.fields))
	}
	for field, want := range map[string]string{
		"Original-Envelope-Id": "q+7", "Reporting-Mta": "dns; mx1.example.test", "Arrival-Date": "Wed, 04 Mar 2026 04:06:07 +0100"} {
		if got := p.fields[0].Get(field); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	for field, want := range map[string]string{
		"Original-Recipient": "rfc822; Bob+x@far.test", "Final-Recipient": "rfc822; bob@far.test", "Action": "failed", "Status": "5.1.1",
		"Remote-Mta": "dns; mx.far.test", "Diagnostic-Code": "smtp; 550 5.1.1 no such user", "Last-Attempt-Date": "Wed, 04 Mar 2026 05:06:06 +0100"} {
		if got := p.fields[1].Get(field); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	for field, want := range map[string]string{
		"Auto-Submitted": "auto-replied", "In-Reply-To": "<m1@example.test>", "References": "<m1@example.test>", "To": "<alice@example.test>"} {
		if got := p.header.Get(field); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	if p.types[2] != "message/rfc822" || p.parts[2] != plain {
		t.Errorf("third part is %s: %q", p.types[2], p.parts[2])
	}
	for _, say := range []string{"bob@far.test", "no such user", "The plan for Friday"} {
		if !strings.Contains(p.parts[0], say) {
			t.Errorf("the part for people does not say %q:\n%s", say, p.parts[0])
		}
	}
}

func TestReturnedContent(t *testing.T) {
	header, _, _ := strings.Cut(plain, "\r\n\r\n")
	header += "\r\n"
	long := plain + strings.Repeat("x", 999) + "\r\n"
	bare := strings.ReplaceAll(plain, "Bob,\r\n.dot", "Bob,\n.dot\rmore")
	for _, c := range []struct {
		name, original, ret string
		action              Action
		max                 int64
		kind, want          string
	}{
		{"whole", plain, "", Failed, 0, "message/rfc822", plain},
		{"asked for", plain, "full", Failed, 0, "message/rfc822", plain},
		{"header asked for", plain, "HDRS", Failed, 0, "text/rfc822-headers", header},
		{"too large", plain, "FULL", Failed, 20, "text/rfc822-headers", header},
		{"a delay", plain, "FULL", Delayed, 0, "text/rfc822-headers", header},
		{"a success", plain, "FULL", Delivered, 0, "text/rfc822-headers", header},
		{"a long line", long, "FULL", Failed, 0, "text/rfc822-headers", header},
		{"stray line ends", bare, "FULL", Failed, 0, "message/rfc822", strings.ReplaceAll(plain, "Bob,\r\n.dot", "Bob,\r\n.dot\r\nmore")},
		{"no body", "Subject: x\r\n", "", Failed, 0, "message/rfc822", "Subject: x\r\n"},
		{"no last line end", "Subject: x\r\n\r\ny", "", Failed, 0, "message/rfc822", "Subject: x\r\n\r\ny\r\n"},
	} {
		r := report(c.original, failed("bob@far.test"))
		r.Return, r.MaxFull, r.Recipients[0].Action = c.ret, c.max, c.action
		p := read(t, write(t, r))
		if p.types[2] != c.kind || p.parts[2] != c.want {
			t.Errorf("%s: %s %q, want %s %q", c.name, p.types[2], p.parts[2], c.kind, c.want)
		}
	}
}

// A large header section is sent back up to a bound, in whole lines.
func TestLargeHeader(t *testing.T) {
	original := strings.Repeat("X-Filler: "+strings.Repeat("y", 900)+"\r\n", 200) + "\r\nbody\r\n"
	r := report(original, failed("bob@far.test"))
	r.Return = "HDRS"
	p := read(t, write(t, r))
	if n := len(p.parts[2]); n > maxHeader || n < maxHeader/2 || !strings.HasSuffix(p.parts[2], "y\r\n") {
		t.Errorf("%d bytes are sent back, ending in %q", n, p.parts[2][max(0, n-20):])
	}
}

// RFC 5321 §4.5.5, RFC 3464 §2: nothing answers the null sender.
func TestNoReportForNullSender(t *testing.T) {
	for _, sender := range []string{"", "<>"} {
		r := report(plain, failed("bob@far.test"))
		r.Sender = sender
		if _, err := Write(r); !errors.Is(err, ErrNoSender) {
			t.Errorf("sender %q: %v", sender, err)
		}
	}
}

// Whatever the other side, the sender or the message say, they say it within one field.
func TestNoInjection(t *testing.T) {
	evil := "x\r\nAction: delivered\r\n\r\n--=_t1.switch1.0\r\nBcc: all@victim.test\n\rX: \u2028y\x00\xff"
	r := report("Subject: a\r\nMessage-ID: <a\tb>\r\nX: "+evil+"\r\n\r\n--=_t1.switch1.0--\r\n--=_t1.switch1.1--\r\n", failed("bob@far.test"))
	r.EnvID, r.Trace, r.Host = evil, evil, "mx1"+evil
	rc := &r.Recipients[0]
	rc.Answer, rc.Reason, rc.RemoteMTA, rc.Original, rc.Status, rc.Address = evil, evil, evil, "rfc822"+evil+";"+evil, "5.1\r\n", "bob@far.test"+evil
	p := read(t, write(t, r))
	if len(p.fields) != 2 {
		t.Fatalf("%d blocks of fields", len(p.fields))
	}
	if got := p.fields[1]["Action"]; len(got) != 1 || got[0] != "failed" {
		t.Errorf("Action: %q", got)
	}
	if got := p.fields[1].Get("Status"); got != "5.0.0" {
		t.Errorf("Status: %q", got)
	}
	if p.header.Get("Bcc") != "" || p.header.Get("References") != "" {
		t.Errorf("header %v", p.header)
	}
}

func TestStatusFitsAction(t *testing.T) {
	for _, c := range []struct {
		action       Action
		status, want string
	}{
		{Failed, "5.7.1", "5.7.1"}, {Failed, "4.4.1", "4.4.1"}, {Failed, "2.0.0", "5.0.0"}, {Failed, "", "5.0.0"}, {Failed, "5.1", "5.0.0"},
		{Failed, "5.x.1", "5.0.0"}, {Delayed, "5.1.1", "4.0.0"}, {Delayed, "4.2.2", "4.2.2"}, {Delivered, "2.1.5", "2.1.5"}, {Delivered, "5.0.0", "2.0.0"},
	} {
		rc := Recipient{Action: c.action, Status: c.status}
		if got := rc.status(); got != c.want {
			t.Errorf("%s %q: %s, want %s", c.action, c.status, got, c.want)
		}
	}
}

// RFC 6533: only what was sent with SMTPUTF8 is answered with it.
func TestInternationalized(t *testing.T) {
	original := "Subject: Grüße\r\n\r\nhello\r\n"
	r := report(original, failed("björn@fär.test"))
	m := write(t, r)
	p := read(t, m)
	if m.UTF8 || p.types[1] != "message/delivery-status" || p.types[2] != "message/rfc822" {
		t.Errorf("without SMTPUTF8: %v %q", m.UTF8, p.types)
	}
	if got := p.fields[1].Get("Final-Recipient"); got != `utf-8; bj\x{F6}rn@f\x{E4}r.test` {
		t.Errorf("Final-Recipient: %q", got)
	}
	r.UTF8 = true
	m = write(t, r)
	p = read(t, m)
	if !m.UTF8 || p.types[1] != "message/global-delivery-status" || p.types[2] != "message/global" {
		t.Errorf("with SMTPUTF8: %v %q", m.UTF8, p.types)
	}
	if got := p.fields[1].Get("Final-Recipient"); got != "utf-8; björn@fär.test" {
		t.Errorf("Final-Recipient: %q", got)
	}
	r.Return = "HDRS"
	if p = read(t, write(t, r)); p.types[2] != "message/global-headers" {
		t.Errorf("header alone: %q", p.types)
	}
}

type brokenReader struct{}

func (brokenReader) ReadAt([]byte, int64) (int, error) { return 0, fmt.Errorf("disk on fire") }

func TestUnreadableOriginal(t *testing.T) {
	r := report(plain, failed("bob@far.test"))
	r.Original = brokenReader{}
	if _, err := Write(r); err == nil {
		t.Error("no error")
	}
}

func FuzzWrite(f *testing.F) {
	f.Add("Subject: x\r\n\r\nbody", "550 no", "bob@far.test", "rfc822;bob", true)
	f.Add("\n\n\r\r\x00", "", "böb@x", ";", false)
	f.Add(plain, "a\r\nb", "\r\n@", "utf-8;\\x{41}", true)
	f.Fuzz(func(t *testing.T, original, answer, address, orcpt string, utf8 bool) {
		r := report(original, Recipient{Address: address, Original: orcpt, Action: Failed, Answer: answer, Reason: answer})
		r.UTF8 = utf8
		p := read(t, write(t, r))
		if len(p.fields) != 2 || p.fields[1].Get("Action") != "failed" {
			t.Errorf("fields %v", p.fields)
		}
	})
}
