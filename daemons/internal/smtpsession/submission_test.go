package smtpsession

import (
	"strings"
	"testing"
)

// A user's message gets the fields it lacks, and keeps those that it has.
func TestCompleted(t *testing.T) {
	r := newRig(t)
	send := func(message string) string {
		t.Helper()
		r.play(`
open 1 submissions
S1: 220 {{.*}}
C1: EHLO client.test
S1~: 250 {{.*}}
C1: AUTH PLAIN AGFsaWNlQGQudGVzdABzZWNyZXQ=
S1: 235 {{.*}}
C1!: MAIL FROM:<alice@d.test>\r\nRCPT TO:<bob@d.test>\r\nDATA\r\n
S1~: 354 {{.*}}
C1!: ` + message + `.\r\n
S1: 250 {{.*}}
`)
		got := r.box.stored()
		return got[len(got)-1].text
	}
	text := send(`Subject: x\r\n\r\nbody\r\n`)
	head, rest, ok := strings.Cut(text, "\tfor <bob@d.test>; Mon, 23 Nov 2026 12:00:00 +0000\r\n")
	if !ok || !strings.Contains(head, "with ESMTPSA id ") || !strings.Contains(head, "(using TLS1.3 with cipher TLS_") {
		t.Errorf("trace field: %q", text)
	}
	if !strings.HasPrefix(rest, "Date: Mon, 23 Nov 2026 12:00:00 +0000\r\nMessage-ID: <") || !strings.HasSuffix(rest, "@mx.d.test>\r\nSubject: x\r\n\r\nbody\r\n") {
		t.Errorf("completed: %q", rest)
	}
	text = send(`date: Tue, 1 Jan 2030 00:00:00 +0000\r\nMESSAGE-ID:\r\n <x@y>\r\n\r\nbody\r\n`)
	if _, rest, _ = strings.Cut(text, "+0000\r\n"); rest != "date: Tue, 1 Jan 2030 00:00:00 +0000\r\nMESSAGE-ID:\r\n <x@y>\r\n\r\nbody\r\n" {
		t.Errorf("left alone: %q", rest)
	}
}
