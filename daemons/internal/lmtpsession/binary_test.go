package lmtpsession

import (
	"strings"
	"testing"
)

// RFC 3030: what comes with BODY=BINARYMIME is stored octet by octet, in one chunk or many, for one recipient or several on two volumes.
func TestBinary(t *testing.T) {
	r := newRig(t)
	const header = "Content-Transfer-Encoding: binary\r\n\r\n"
	blob := "\x00\n\r\n.\r\n\r\xff" + strings.Repeat("\x00long", 2000)
	escape := strings.NewReplacer("\r", `\r`, "\n", `\n`, "\x00", `\x00`, "\xff", `\xff`).Replace
	r.play(hello + `
C1!: MAIL FROM:<a@b.test> BODY=BINARYMIME\r\nRCPT TO:<alice@d.test>\r\nBDAT 35\r\n` + escape(header[:35]) + `BDAT 2\r\n\r\nBDAT 10009 LAST\r\n` + escape(blob) + `
S1: 250 {{.*}}
S1: 250 {{.*}}
S1: 250 2.0.0 Go on
S1: 250 2.0.0 Go on
S1: 250 2.0.0 <alice@d.test> Delivered, {{.*}}
C1!: MAIL FROM:<a@b.test> BODY=BINARYMIME\r\nRCPT TO:<nobody@d.test>\r\nRCPT TO:<bob@d.test>\r\nRCPT TO:<carol@d.test>\r\nBDAT 2\r\n\r\nBDAT 1\r\n\x00BDAT 0 LAST\r\n
S1: 250 {{.*}}
S1: 550 5.1.1 {{.*}}
S1: 250 {{.*}}
S1: 250 {{.*}}
S1: 250 2.0.0 Go on
S1: 250 2.0.0 Go on
S1: 250 2.0.0 <bob@d.test> Delivered, {{.*}}
S1: 250 2.0.0 <carol@d.test> Delivered, {{.*}}
# Refused for all, given up, without an end, too large: nothing is stored, and the connection goes on where that is safe.
C1!: MAIL FROM:<a@b.test> BODY=BINARYMIME\r\nRCPT TO:<nobody@d.test>\r\nBDAT 1 LAST\r\n\x00RSET\r\n
S1: 250 {{.*}}
S1: 550 5.1.1 {{.*}}
S1: 503 {{.*}}
S1: 250 {{.*}}
C1!: MAIL FROM:<a@b.test> BODY=BINARYMIME\r\nRCPT TO:<bob@d.test>\r\nBDAT 1\r\n\x00RSET\r\nMAIL FROM:<a@b.test> SIZE=1048577\r\n
S1: 250 {{.*}}
S1: 250 {{.*}}
S1: 250 2.0.0 Go on
S1: 250 {{.*}}
S1: 552 5.3.4 {{.*}}
C1!: MAIL FROM:<a@b.test> BODY=BINARYMIME\r\nRCPT TO:<bob@d.test>\r\nBDAT 3 LAST\r\n\x00
S1: 250 {{.*}}
S1: 250 {{.*}}
halfclose 1
eof 1
`)
	r.expect("alice@d.test", "Return-Path: <a@b.test>\r\nDelivered-To: alice@d.test\r\n"+header+blob)
	for _, who := range []string{"bob@d.test", "carol@d.test"} {
		r.expect(who, "Return-Path: <a@b.test>\r\n\r\n\x00")
	}
}
