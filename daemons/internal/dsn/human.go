package dsn

import (
	"fmt"
	"strings"
)

var subjects = map[Action]string{
	Failed:    "Your message could not be delivered",
	Delayed:   "Your message is delayed",
	Delivered: "Your message was delivered",
	Relayed:   "Your message was passed on",
	Expanded:  "Your message was passed on to several recipients",
}

// human is the part for people. Lines are CRLF, and at most as long as what they quote.
func (w *writer) human(kind Action) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	say("This is the mail system of %s.", w.ascii(w.r.Host))
	say("")
	if w.orig.subject != "" {
		say("It is about your message with the subject:")
		say("    %s", w.text(w.orig.subject))
	} else {
		say("It is about a message of yours")
	}
	if !w.r.Accepted.IsZero() {
		say("which was accepted here on %s.", until(w.r.Accepted))
	}
	for _, action := range []Action{Failed, Delayed, Delivered, Relayed, Expanded} {
		w.section(&b, action)
	}
	say("")
	switch kind {
	case Failed:
		say("What you can do: check the address for mistakes, or reach the recipient in another")
		say("way. If the reason above is unclear, show this message to your administrator.")
	case Delayed:
		say("You need not do anything, and should not send the message again. You will be told if")
		say("it cannot be delivered in the end.")
	default:
		say("You get this notice because you asked for it. You need not do anything.")
	}
	if w.r.Trace != "" {
		say("")
		say("For administrators: the message is %s in the logs.", w.ascii(w.r.Trace))
	}
	return b.String()
}

var openings = map[Action][]string{
	Failed:    {"It could NOT be delivered, and will not be tried again, to:"},
	Delayed:   {"It could not be delivered yet to the following. It will be tried again by itself:"},
	Delivered: {"It was delivered to the mailbox of:"},
	Relayed:   {"It was passed on to another mail system, which sends no notices of its own, for:"},
	Expanded:  {"It was passed on to the several recipients that this address stands for:"},
}

// section writes the recipients of one action.
func (w *writer) section(b *strings.Builder, action Action) {
	first := true
	for i := range w.r.Recipients {
		rc := &w.r.Recipients[i]
		if rc.Action != action {
			continue
		}
		if first {
			for _, l := range openings[action] {
				b.WriteString("\r\n" + l + "\r\n")
			}
			first = false
		}
		fmt.Fprintf(b, "\r\n    <%s>\r\n", w.address(rc.Address))
		if rc.Reason != "" {
			fmt.Fprintf(b, "        %s\r\n", w.text(rc.Reason))
		}
		if rc.Answer != "" {
			who := "The other side"
			if rc.RemoteMTA != "" {
				who = w.ascii(rc.RemoteMTA)
			}
			fmt.Fprintf(b, "        %s said: %s\r\n", who, w.text(rc.Answer))
		}
		if rc.Action == Delayed && !rc.Until.IsZero() {
			fmt.Fprintf(b, "        It will be tried until %s.\r\n", until(rc.Until))
		}
	}
}
