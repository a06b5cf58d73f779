package lmtpsession

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// fuzzPrefixes bring a session into each of its states: before LHLO, in no transaction, behind MAIL, with recipients, within DATA, between
// chunks, within a chunk, and behind a message.
var fuzzPrefixes = []string{
	"",
	"LHLO x\r\n",
	"LHLO x\r\nMAIL FROM:<a@b.test>\r\n",
	"LHLO x\r\nMAIL FROM:<a@b.test> ENVID=t/again\r\nRCPT TO:<alice@d.test>\r\nRCPT TO:<nobody@d.test>\r\nRCPT TO:<carol@d.test>\r\n",
	"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<alice@d.test>\r\nDATA\r\n",
	"LHLO x\r\nMAIL FROM:<a@b.test> BODY=BINARYMIME\r\nRCPT TO:<alice@d.test>\r\nRCPT TO:<carol@d.test>\r\nBDAT 3\r\n\x00\r\n",
	"LHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<alice@d.test>\r\nBDAT 9 LAST\r\n",
	"LHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bob@d.test>\r\nBDAT 2 LAST\r\nx\n",
}

var fuzzReply = regexp.MustCompile(`^[2-5][0-9][0-9][ -]`)

// FuzzSession: whatever a switch sends in any state, every answer is made of whole reply lines, the session ends when the switch closes its
// side, nothing panics, and no more is stored than was answered 250 with an id.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"NOOP\r\nRSET\r\nQUIT\r\n", "MAIL FROM:<a@b.test> SIZE=10 BODY=8BITMIME SMTPUTF8 ENVID=x RET=HDRS\r\nRCPT TO:<alice@d.test> NOTIFY=NEVER ORCPT=rfc822;a@b\r\nDATA\r\n",
		"x\r\n.\r\n", "..\r\n\r\n.\r\nNOOP\r\n", "a\nb\r\n.\r\n", "BDAT 0 LAST\r\n", "BDAT 5\r\nab\x00\r\nBDAT 0 LAST\r\nNOOP\r\n", "BDAT 99999999999 LAST\r\n", "BDAT -1\r\n",
		"123456789NOOP\r\n", "RSET\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nBDAT 1 LAST\r\nxBDAT 1 LAST\r\ny", "STARTTLS\r\n", "LHLO y\r\nEHLO z\r\nHELO\r\nVRFY a\r\nEXPN b\r\nHELP\r\nAUTH PLAIN\r\n",
		"RCPT TO:<\"odd name\"@d.test>\r\nRCPT TO:<@a,@b:alice@d.test>\r\nRCPT TO:<jürgen@d.test>\r\nDATA\r\n", "\x00\xff\r\r\n\n",
	} {
		for state := range uint8(len(fuzzPrefixes)) {
			f.Add([]byte(s), state)
		}
	}
	log := &lockedWriter{b: &bytes.Buffer{}}
	r := newRig(f, func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelError}))
	})
	delivered := regexp.MustCompile(`(?m)^250 2\.0\.0 <[^\r\n]*> Delivered, `)
	stored := 0
	f.Fuzz(func(t *testing.T, in []byte, state uint8) {
		if len(in) > 1<<14 {
			return
		}
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			_, _ = conn.Write(append([]byte(fuzzPrefixes[int(state)%len(fuzzPrefixes)]), in...))
			_ = conn.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(conn)
		if os.IsTimeout(err) {
			t.Fatalf("the session does not end: %q", got)
		}
		for i, line := range bytes.Split(got, []byte("\r\n")) {
			switch {
			case len(line) == 0 && i > 0:
			case !fuzzReply.Match(line) || bytes.ContainsAny(line, "\r\n\x00"):
				t.Fatalf("no reply: %q in %q", line, got)
			}
		}
		log.mu.Lock()
		logged := log.b.String()
		log.b.Reset()
		log.mu.Unlock()
		if strings.Contains(logged, "panic") {
			t.Fatalf("a panic: %s", logged)
		}
		stored += len(delivered.FindAll(got, -1))
	})
	f.Cleanup(func() {
		n := 0
		for _, who := range []string{"alice@d.test", "bob@d.test", "carol@d.test"} {
			n += len(r.inbox(who))
		}
		if n < stored {
			f.Errorf("%d messages are stored, %d were acknowledged", n, stored)
		}
	})
}
