package popsession

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

func newWriter(w io.Writer) *bufio.Writer { return bufio.NewWriter(w) }

// pieces reads a text in pieces.
type pieces struct {
	rest string
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.rest == "" {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.size)], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// prefixes bring a session into each of its states.
var prefixes = []string{"", "USER alice\r\nPASS secret word\r\n", "USER alice\r\n", "AUTH PLAIN\r\n",
	"USER alice\r\nPASS secret word\r\nDELE 2\r\nRETR 1\r\n", "UTF8\r\nAUTH PLAIN AGFsaWNlAHNlY3JldCB3b3Jk\r\n"}

// FuzzSession: whatever a client sends, before the login or behind it, amid USER and PASS, amid a SASL exchange, with a message marked
// as deleted, with UTF8, every answer is made of whole lines, the session ends when the client closes its side, and only QUIT deletes.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"CAPA\r\nUSER a\r\nPASS b\r\nQUIT\r\n", "AUTH PLAIN\r\n*\r\nAUTH LOGIN YQ==\r\nYg==\r\n", "LIST\r\nUIDL 1\r\nTOP 1 1\r\nRETR 2\r\nDELE 1\r\nRSET\r\n",
		"UTF8\r\nLANG\r\nLANG *\r\nTOP 4 0\r\nRETR 4\r\n", "STAT\nNOOP\n\n \r\nLIST  1\r\nTOP 1 \r\n\x00\r\n\r\r\n", "DELE 3\r\nDELE 3\r\nRETR 3\r\n", "STLS\r\nX\r\n",
	} {
		for state := range uint8(6) {
			f.Add([]byte(s), state)
		}
	}
	r := newRig(f, func(o *Options) {
		o.Limits.AllowPlain = true
		o.Limits.BadCommands = 100
		o.TLS = nil
	})
	r.deliver("alice", append(mails, "Subject: ü\r\n\r\n\x00")...)
	f.Fuzz(func(t *testing.T, input []byte, state uint8) {
		if strings.Contains(strings.ToUpper(string(input)), "QUIT") {
			return
		}
		conn, err := r.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() {
			input = append([]byte(prefixes[int(state)%len(prefixes)]), input...)
			_, _ = conn.Write(input)
			_ = conn.(*net.TCPConn).CloseWrite()
		}()
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		got, err := io.ReadAll(conn)
		if os.IsTimeout(err) {
			t.Fatalf("the session does not end: %q", got)
		}
		rest := bytes.ReplaceAll(got, []byte("\r\n"), nil)
		if !bytes.HasPrefix(got, []byte("+OK ")) || err == nil && !bytes.HasSuffix(got, []byte("\r\n")) || bytes.ContainsAny(rest, "\r\n\x00") {
			t.Fatalf("answers that are no lines: %q", got)
		}
		r := &rig{t: t, store: r.store, metrics: r.metrics}
		if n := r.value("shoal_pop_panics_total"); n != 0 {
			t.Fatal("a panic")
		}
		if got := r.state("alice"); got != "1 2 3 4" {
			t.Fatalf("the INBOX has %q", got)
		}
	})
}
