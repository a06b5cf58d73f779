package filter

import (
	"net/mail"
	"strings"
	"testing"
)

func TestClient(t *testing.T) {
	for text, want := range map[string]string{
		"Return-Path: <>\r\nReceived: from a.test ([192.0.2.7])\r\n\t(using TLS)\r\n\tby s; x\r\n\r\n": "a.test 192.0.2.7",
		"Received: from [10.0.0.1] ([IPv6:2001:db8::1])\r\n\r\n":                                       "[10.0.0.1] 2001:db8::1",
		"Subject: x\r\n\r\nReceived: from a.test ([192.0.2.7])\r\n":                                    " ",
		"Received: by s\r\nReceived: from a.test ([192.0.2.7])\r\n\r\n":                                " ",
		"Received: from a.test ([x])\r\n\r\n":                                                          " ",
		"":                                                                                             " ",
	} {
		if name, ip := client(strings.NewReader(text)); name+" "+ip != want {
			t.Errorf("%q: %q %q, want %q", text, name, ip, want)
		}
	}
}

// A reason that no SMTP reply can carry goes to the sender as a disposition notification.
func TestRefusalInAnotherAlphabet(t *testing.T) {
	r := newRig(t, nil)
	r.script(`require "reject"; reject "Nein, schöne Grüße";`)
	_, _, err := r.deliver(sample)
	must(t, err)
	got := r.relay.take()
	if len(got) != 1 {
		t.Fatalf("%q", got)
	}
	_, text, _ := strings.Cut(got[0], "\n")
	m, err := mail.ReadMessage(strings.NewReader(text))
	must(t, err)
	if !strings.HasPrefix(m.Header.Get("Content-Type"), "multipart/report; report-type=disposition-notification") || m.Header.Get("Auto-Submitted") != "auto-replied (rejected)" {
		t.Errorf("%v", m.Header)
	}
	for _, want := range []string{"Nein, sch=C3=B6ne Gr=C3=BC=C3=9Fe", "Final-Recipient: rfc822; bob@d.test\r\n", "Original-Message-ID: <1@far.test>\r\n", "Disposition: automatic-action/MDN-sent-automatically; deleted\r\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
