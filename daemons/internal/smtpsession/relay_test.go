package smtpsession

import (
	"strings"
	"testing"
)

// A box sends on: everything is queued, whoever it is for; each recipient has an answer of its own.
func TestRelay(t *testing.T) {
	r, q := queueRig(t, func(o *Options) {
		if o.Listener == "smtp" {
			o.Listener, o.Relay = "relay", true
		}
	})
	r.play(`
open 1 relay
S1: 220 mx.d.test {{.*}}
C1: LHLO box1
S1~: 250 {{.*}}
C1: MAIL FROM:<>
S1: 530 {{.*}}
C1: STARTTLS
S1: 220 {{.*}}
starttls 1
C1: LHLO box1
S1~: 250 {{.*}}
C1!: MAIL FROM:<x@far.test>\r\nRCPT TO:<carol@other.test>\r\nRCPT TO:<bob@d.test>\r\nRCPT TO:<nobody@d.test>\r\n
S1: 250 {{.*}}
S1: 250 {{.*}}
S1: 250 {{.*}}
S1: 550 5.1.1 {{.*}}
C1: DATA
S1: 354 {{.*}}
C1!: Delivered-To: alice@d.test\r\nSubject: x\r\n\r\nbody\r\n.\r\n
S1: 250 {{.*}}
S1: 250 {{.*}}
C1!: MAIL FROM:<x@far.test>\r\nRCPT TO:<bob@d.test>\r\n
S1: 250 {{.*}}
S1: 250 {{.*}}
C1: DATA
S1: 354 {{.*}}
C1!: Delivered-To: bob@d.test\r\nSubject: x\r\n\r\nbody\r\n.\r\n
S1: 554 5.4.6 {{.*}}
`)
	got := q.take()
	if e := entries(got); e != "x@far.test>carol@other.test x@far.test>bob@d.test" {
		t.Error(e)
	}
	if !strings.HasPrefix(got[0].text, "Received: from box1 (") || !strings.Contains(got[0].text, " with LMTPS id ") {
		t.Errorf("%q", got[0].text)
	}
}
