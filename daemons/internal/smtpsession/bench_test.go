package smtpsession

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
)

// BenchmarkAcceptAndDeliver is one 4 KB message over SMTP, through this package and deliver, to an LMTP sink in the
// same process: client, switch and sink together.
func BenchmarkAcceptAndDeliver(b *testing.B) {
	r := newRig(b)
	c, err := r.targets["smtp"]()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	expect := func(code string) {
		for {
			line, err := in.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, code) {
				b.Fatalf("%q, %v; want %s", line, err, code)
			}
			if line[3] == ' ' {
				return
			}
		}
	}
	say := func(c net.Conn, s string) {
		if _, err := fmt.Fprint(c, s); err != nil {
			b.Fatal(err)
		}
	}
	expect("220")
	say(c, "EHLO client.test\r\n")
	expect("250")
	text := "Subject: x\r\nMessage-ID: <x@y>\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 52) + ".\r\n"
	b.ReportAllocs()
	for b.Loop() {
		say(c, "MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@d.test>\r\nDATA\r\n")
		expect("250")
		expect("250")
		expect("354")
		say(c, text)
		expect("250")
	}
}
