package lmtpsession

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	dto "github.com/prometheus/client_model/go"

	"shoal/daemons/internal/dirclient"
)

const received = "Received: from x by switch1.test with ESMTP id trace-1; Mon, 23 Nov 2026 12:00:00 +0000\\r\\nSubject: x\\r\\n\\r\\ntext\\r\\n"

// transaction writes one, and the replies after its end.
func lmtpTransaction(envID, rcpts, text, replies string) string {
	s := "C1: MAIL FROM:<a@b.test> ENVID=" + envID + "\nS1: 250 {{.*}}\n"
	for r := range strings.FieldsSeq(rcpts) {
		s += "C1: RCPT TO:<" + r + "@d.test>\nS1: 250 {{.*}}\n"
	}
	s += "C1: DATA\nS1: 354 {{.*}}\nC1!: " + text + ".\\r\\n\n"
	for r := range strings.SplitSeq(replies, "|") {
		s += "S1: 250 2.0.0 {{.*}}" + r + "{{.*}}\n"
	}
	return s
}

// What a switch tries again because it got no answer is not delivered twice: the same recipients or fewer of them, in
// other company, and whether or not the mailbox has become full.
func TestAgain(t *testing.T) {
	few := account("few-000001", "vol01", dirclient.StatusActive)
	few.QuotaMessages = 1
	accounts := directory{"few@d.test": few}
	for k, v := range people {
		accounts[k] = v
	}
	r := newRig(t, func(o *Options) { o.Accounts = accounts })
	people["few@d.test"] = few
	defer delete(people, "few@d.test")
	r.play(hello +
		lmtpTransaction("trace-1", "alice carol few", received, "Delivered,|Delivered,|Delivered,") +
		lmtpTransaction("trace-1/again", "alice", received, "Delivered before,") +
		lmtpTransaction("trace-1/again", "alias bob", received, "Delivered before,|Delivered,") +
		lmtpTransaction("trace-1/again", "bob", received, "Delivered before,") +
		lmtpTransaction("trace-1/again", "carol few", received, "Delivered before,|Delivered before,") +
		// Not marked, and yet there: it comes late.
		lmtpTransaction("trace-1", "bob alice", received, "Delivered before,|Delivered before,") +
		lmtpTransaction("trace-2/again", "alice", strings.Replace(received, "trace-1", "trace-2", 1), "Delivered,") +
		// Room is asked for when it is needed.
		"C1: MAIL FROM:<a@b.test> ENVID=trace-3/again\nS1: 250 {{.*}}\nC1: RCPT TO:<few@d.test>\nS1: 250 {{.*}}\nC1: DATA\nS1: 354 {{.*}}\nC1!: new\\r\\n.\\r\\n\nS1: 552 5.2.2 {{.*}}\n")
	for who, want := range map[string]int{"alice@d.test": 2, "bob@d.test": 1, "carol@d.test": 1, "few@d.test": 1} {
		if got := r.inbox(who); len(got) != want {
			t.Errorf("%s has %q", who, got)
		}
	}
	var n dto.Metric
	if err := r.srv.m.duplicates.Write(&n); err != nil || n.GetCounter().GetValue() != 7 {
		t.Errorf("%v duplicates counted, want 7 (%v)", n.GetCounter().GetValue(), err)
	}
	if log := r.log.String(); !strings.Contains(log, "event=duplicate trace=trace-1 ") {
		t.Errorf("log: %s", log)
	}
}

// With a window of nought everything is delivered.
func TestAgainSwitchedOff(t *testing.T) {
	r := newRig(t, func(o *Options) { o.DuplicateWindow = -time.Second })
	r.play(hello + lmtpTransaction("trace-1", "alice", received, "Delivered,") + lmtpTransaction("trace-1/again", "alice", received, "Delivered,"))
	if got := r.inbox("alice@d.test"); len(got) != 2 {
		t.Errorf("%q", got)
	}
}

// The trace is found wherever the reads cut it, and only near the top.
func TestMarked(t *testing.T) {
	text := "Delivered-To: list@d.test\r\nReceived: from x by y id trace-1; z\r\n" + strings.Repeat("x", 4000) + " id trace-2"
	for _, read := range []struct {
		name string
		of   func(io.Reader) io.Reader
	}{{"whole", func(r io.Reader) io.Reader { return r }}, {"octets", iotest.OneByteReader}, {"halves", iotest.HalfReader}} {
		for mark, want := range map[string]bool{" id trace-1": true, " id trace-2": false, " id trace-3": false} {
			m := &marked{r: read.of(strings.NewReader(text)), mark: []byte(mark)}
			got, err := io.ReadAll(m)
			if err != nil || string(got) != text || m.found != want {
				t.Errorf("%s, %q: found %v, %d octets, %v", read.name, mark, m.found, len(got), err)
			}
		}
	}
	r := newRig(t)
	r.play(hello + lmtpTransaction("trace-9", "alice", received, "Delivered,") + lmtpTransaction("trace-9/again", "alice", received, "Delivered,"))
	if got := r.inbox("alice@d.test"); len(got) != 2 {
		t.Errorf("a message that does not hold its trace: %q", got)
	}
}
