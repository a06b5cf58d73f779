package smtpguard

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// forms are the ways in which a message can hold what another server may take for the end of data. Each
// is put where a message has the smuggled part behind it; a server that treats the form as the end
// executes that part as commands.
var forms = []struct {
	name, form string
	legal      bool // only CRLF line ends: one message, accepted as it is
}{
	{"LF.LF", "\n.\n", false},
	{"LF.CRLF", "\n.\r\n", false},
	{"CRLF.LF", "\r\n.\n", false},
	{"CR.CR", "\r.\r", false},
	{"CR.CRLF", "\r.\r\n", false},
	{"CR.LF", "\r.\n", false},
	{"CRLF.CR", "\r\n.\r", false},
	{"LF.CR", "\n.\r", false},
	{"CRCRLF.CRLF", "\r\r\n.\r\n", false},
	{"CRCRLF.CRCRLF", "\r\r\n.\r\r\n", false},
	{"CRLF.CRCRLF", "\r\n.\r\r\n", false},
	{"LFCRLF.CRLF", "\n\r\n.\r\n", false},
	{"CRLFLF.CRLF", "\r\n\n.\r\n", false},
	{"CRLFCR.CRLF", "\r\n\r.\r\n", false},
	{"LF..CRLF", "\n..\r\n", false},
	{"CRLF..LF", "\r\n..\n", false},
	{"NUL.CRLF", "\x00.\r\n", true},
	{"CRLF NUL.CRLF", "\r\n\x00.\r\n", true},
	{"CRLF.NUL CRLF", "\r\n.\x00\r\n", true},
	{"CRLF..CRLF", "\r\n..\r\n", true},
	{"CRLF space.CRLF", "\r\n .\r\n", true},
	{"CRLF.space CRLF", "\r\n. \r\n", true},
	{"VT.VT", "\x0b.\x0b", true},
	{"FF.FF", "\x0c.\x0c", true},
	{"NEL.NEL", "\u0085.\u0085", true},
	{"LS.LS", "\u2028.\u2028", true},
	{"0x8d 0x8a", "\x8d\x8a.\x8d\x8a", true},
	{"CRLF.backspace", "\r\n.\x08\r\n", true},
}

const smuggled = "MAIL FROM:<evil@b.test>\r\nRCPT TO:<victim@d.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n"

// TestSmuggling shows on the wire that no form makes two messages out of one, that a form with a bare
// CR or LF is refused with 550 5.6.11 and ends the connection, and that everything else goes through as one
// message with all its octets. Each form comes in one write and cut at every place of it.
func TestSmuggling(t *testing.T) {
	for _, lmtp := range []bool{false, true} {
		_, addr, k := serve(t, Options{LMTP: lmtp})
		for _, f := range forms {
			before := "Subject: outer\r\n\r\nfirst"
			text := before + f.form + smuggled
			for cut := len(before); cut <= len(before)+len(f.form); cut++ {
				n := len(k.accepted())
				code, closed := sendData(t, addr, lmtp, text+"\r\n.\r\n", cut)
				got := k.accepted()[n:]
				switch {
				case f.legal && (code != "250" || closed || len(got) != 1):
					t.Errorf("%s cut at %d: %s, closed %v, %d messages", f.name, cut, code, closed, len(got))
				case f.legal:
					if want := strings.ReplaceAll(text+"\r\n", "\r\n.", "\r\n"); got[0].text != want {
						t.Errorf("%s: stored %q, want %q", f.name, got[0].text, want)
					}
				case code != "550" || !closed || len(got) != 0:
					t.Errorf("%s cut at %d: %s, closed %v, %d messages", f.name, cut, code, closed, len(got))
				}
			}
		}
		for _, m := range k.accepted() {
			if m.from == "evil@b.test" {
				t.Fatalf("smuggled: %q", m)
			}
		}
	}
}

// TestSmugglingStart has the forms at the very beginning of the data, where the line before is the command.
func TestSmugglingStart(t *testing.T) {
	_, addr, k := serve(t, Options{})
	for _, start := range []string{".\n", ".\r", ".\r\r\n", "\n.\r\n", "\r.\r\n"} {
		if code, closed := sendData(t, addr, false, start+smuggled+"\r\n.\r\n", 0); code != "550" || !closed {
			t.Errorf("%q: %s, closed %v", start, code, closed)
		}
	}
	if m := k.accepted(); len(m) != 0 {
		t.Errorf("accepted %q", m)
	}
}

// sendData sends one message by DATA, in two writes cut at the given place, and returns the code of the
// reply and whether the server then closed.
func sendData(t testing.TB, addr string, lmtp bool, data string, cut int) (code string, closed bool) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	r := newLines(conn)
	r.expect(t, "220")
	hello := "EHLO"
	if lmtp {
		hello = "LHLO"
	}
	for _, s := range []string{hello + " me", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>"} {
		io.WriteString(conn, s+"\r\n")
		r.expect(t, "250")
	}
	io.WriteString(conn, "DATA\r\n")
	r.expect(t, "354")
	io.WriteString(conn, data[:cut])
	io.WriteString(conn, data[cut:])
	line, err := r.next()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "NOOP\r\n")
	next, err := r.next()
	if err == nil && !strings.HasPrefix(next, "250 2.0.0 I have") {
		t.Fatalf("after %q: %q", line, next)
	}
	return line[:3], err != nil
}

// A client whose end of data is of its own kind gets its refusal soon, not after the long time-out.
func TestBareEndIsAnswered(t *testing.T) {
	_, addr, k := serve(t, Options{ReadTimeout: 200 * time.Millisecond})
	if code, closed := sendData(t, addr, false, "Subject: x\n\nbody\n.\n", 3); code != "550" || !closed {
		t.Errorf("%s, closed %v", code, closed)
	}
	if m := k.accepted(); len(m) != 0 {
		t.Errorf("accepted %q", m)
	}
}

// script is a net.Conn whose input is given and whose output is kept. Each Read gives one piece.
type script struct {
	net.Conn
	in  [][]byte
	out bytes.Buffer
	end chan struct{}
}

func (s *script) Read(p []byte) (int, error) {
	for len(s.in) > 0 && len(s.in[0]) == 0 {
		s.in = s.in[1:]
	}
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.in[0])
	s.in[0] = s.in[0][n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }
func (s *script) LocalAddr() net.Addr              { return s.RemoteAddr() }

func (s *script) Close() error {
	select {
	case <-s.end:
	default:
		close(s.end)
	}
	return nil
}

// scripts is a listener that gives out scripts.
type scripts chan net.Conn

func (l scripts) Accept() (net.Conn, error) {
	c, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l scripts) Close() error   { return nil }
func (l scripts) Addr() net.Addr { return &net.TCPAddr{} }

// player runs scripts through one Guard.
func player(t testing.TB, o Options) func(in ...[]byte) (*script, []message) {
	k := &sink{}
	o.Backend, o.Hostname, o.MaxMessageBytes = k, "mx.example.test", 1<<16
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l := make(scripts)
	go g.Serve(l)
	t.Cleanup(func() { g.Close(); close(l) })
	return func(in ...[]byte) (*script, []message) {
		n := len(k.accepted())
		s := &script{in: in, end: make(chan struct{})}
		l <- s
		<-s.end
		return s, k.accepted()[n:]
	}
}

// split cuts b into pieces of 1 to 7 octets by the bits of how; 0 leaves it whole.
func split(b []byte, how uint64) (pieces [][]byte) {
	for how != 0 && len(b) > 0 {
		n := min(int(how%8), len(b))
		if how >>= 3; n > 0 {
			pieces = append(pieces, b[:n])
			b = b[n:]
		}
	}
	return append(pieces, b)
}

// FuzzData: whatever a message holds, as long as it does not hold CRLF . CRLF it is one message or
// none, and what is accepted has all its octets, dots removed, and no bare CR or LF.
func FuzzData(f *testing.F) {
	for i, x := range forms {
		f.Add([]byte("first"+x.form+smuggled), uint64(i)*0x9249)
	}
	f.Add([]byte(".\r"), uint64(0))
	f.Add([]byte("\r\n..\r\n...\r"), uint64(0x249249))
	play := player(f, Options{MaxErrors: 1000, MaxTextLine: 5000})
	f.Fuzz(func(t *testing.T, text []byte, how uint64) {
		if len(text) > 1<<15 {
			return
		}
		if i := bytes.Index([]byte("\r\n"+string(text)+"\r\n"), []byte("\r\n.\r\n")); i >= 0 {
			text = text[:max(i-2, 0)]
		}
		in := [][]byte{[]byte("EHLO me\r\n"), []byte("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n")}
		body := append(append([]byte(nil), text...), "\r\n.\r\n"...)
		in = append(in, split(body, how)...)
		in = append(in, []byte("QUIT\r\n"))
		s, got := play(in...)
		want, good := reference(append(append([]byte(nil), text...), "\r\n"...))
		if len(got) > 1 || len(got) == 1 && (!good || got[0].text != string(want)) {
			t.Fatalf("%q: accepted %q", text, got)
		}
		if len(got) == 0 && good && !longLine(text, 4998) {
			t.Fatalf("%q: refused: %s", text, s.out.String())
		}
	})
}

// reference removes stuffed dots the slow way and says whether every CR is followed by LF and every LF
// follows CR.
func reference(data []byte) (text []byte, good bool) {
	bol := true
	for i, c := range data {
		switch {
		case c == '\r' && (i+1 == len(data) || data[i+1] != '\n'), c == '\n' && (i == 0 || data[i-1] != '\r'):
			return nil, false
		case bol && c == '.':
			bol = false
			continue
		}
		bol = c == '\n'
		text = append(text, c)
	}
	return text, true
}

func longLine(text []byte, limit int) bool {
	for line := range bytes.SplitSeq(text, []byte("\r\n")) {
		if len(line) > limit {
			return true
		}
	}
	return false
}

// FuzzChunks: any message in any chunks is one message with all its octets; cut off anywhere, it is none.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("a\nb\rc\r\n.\r\nQUIT\r\n"), uint64(0x24924), uint16(0), false)
	f.Add([]byte("BDAT 3 LAST\r\nabcMAIL FROM:<a@b.test>\r\n"), uint64(0x11), uint16(20), true)
	f.Add([]byte{}, uint64(0), uint16(1), false)
	plays := map[bool]func(...[]byte) (*script, []message){false: player(f, Options{}), true: player(f, Options{LMTP: true})}
	f.Fuzz(func(t *testing.T, text []byte, how uint64, cut uint16, lmtp bool) {
		if len(text) > 1<<14 {
			return
		}
		hello := "EHLO me\r\n"
		if lmtp {
			hello = "LHLO me\r\n"
		}
		stream := []byte("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n")
		pieces := split(text, how)
		for i, p := range pieces {
			last := ""
			if i == len(pieces)-1 {
				last = " LAST"
			}
			stream = append(fmt.Appendf(stream, "BDAT %d%s\r\n", len(p), last), p...)
		}
		whole := int(cut) == 0 || int(cut) >= len(stream)
		if !whole {
			stream = stream[:len(stream)-int(cut)]
		}
		s, got := plays[lmtp](append([][]byte{[]byte(hello)}, split(stream, how)...)...)
		if whole && (len(got) != 1 || got[0].text != string(text)) || !whole && len(got) != 0 {
			t.Fatalf("%q in %d chunks, %d cut off: %q\n%s", text, len(pieces), cut, got, s.out.String())
		}
	})
}

// FuzzSession: any input at all. No panic, an end, every line of the output a reply, no more messages than
// there are DATA and BDAT LAST commands, and no message with bare CR or LF but by BDAT.
func FuzzSession(f *testing.F) {
	hello := "EHLO me\r\n"
	f.Add([]byte(hello+"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 3 LAST\r\nabcQUIT\r\n"), uint64(0), false)
	f.Add([]byte(hello+"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 3\r\nabcBDAT 9 LAST\r\nabc"), uint64(0), true)
	f.Add([]byte("LHLO x\r\nAUTH PLAIN\r\n*\r\nSTARTTLS\r\nVRFY x\r\nNOOP\r\n"), uint64(0x111), true)
	f.Add([]byte("EHLO \x00\r\nHELP\n"), uint64(0), false)
	f.Add([]byte("MAIL FROM:<@a,@b:\"x\\\"y\"@c.test> SIZE=99999999999999999999\r\nRSET\r\n"), uint64(0), false)
	play := []func(...[]byte) (*script, []message){player(f, Options{MaxErrors: 1000}), player(f, Options{MaxErrors: 1000, LMTP: true})}
	f.Fuzz(func(t *testing.T, in []byte, how uint64, lmtp bool) {
		p := play[0]
		if lmtp {
			p = play[1]
		}
		// A line a piece, so that commands which must be last in their group are reached.
		var pieces [][]byte
		for line := range bytes.SplitAfterSeq(in, []byte("\n")) {
			pieces = append(pieces, split(line, how)...)
		}
		s, got := p(pieces...)
		upper := bytes.ToUpper(in)
		if n := bytes.Count(upper, []byte("DATA")) + bytes.Count(upper, []byte("LAST")); len(got) > n {
			t.Fatalf("%q: %d messages", in, len(got))
		}
		if !bytes.Contains(upper, []byte("BDAT")) {
			for _, m := range got {
				for i := range m.text {
					if c := m.text[i]; c == '\r' && (i+1 == len(m.text) || m.text[i+1] != '\n') || c == '\n' && (i == 0 || m.text[i-1] != '\r') {
						t.Fatalf("%q: accepted %q", in, m.text)
					}
				}
			}
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(s.out.String(), "\r\n"), "\r\n") {
			if line != "" && (len(line) < 4 || line[0] < '2' || line[0] > '5' || line[3] != ' ' && line[3] != '-') {
				t.Fatalf("%q: reply %q", in, line)
			}
		}
	})
}
