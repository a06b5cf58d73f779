package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/queue"
	"shoal/daemons/internal/route"
)

// expand replaces a recipient by those that it stands for, in entries of their own: one for each destination.
func (a *attempt) expand(ctx context.Context, i int, addr mailaddr.Address, d route.Decision) {
	if a.hops() > a.r.s.MaxHops {
		a.fail(i, "5.4.6", "The message has gone through too many servers: it seems to go in circles.")
		return
	}
	if slices.Contains(a.header.deliveredTo, addr.Key()) {
		a.fail(i, "5.4.6", "The message was sent on from this address before: it goes in circles.")
		return
	}
	leaves, err := route.Resolve(ctx, a.r.o.Router, addr, d)
	switch {
	case errors.Is(err, route.ErrCircle):
		a.fail(i, "5.4.6", "The address is an alias that leads back to itself.")
		return
	case errors.Is(err, route.ErrTooMany):
		a.fail(i, "5.2.4", "The address stands for too many others.")
		return
	case err != nil:
		a.r.o.Log.Warn("alias or forward not followed", "event", "directory", "trace", a.env.Trace, "rcpt", addr.String(), "error", err)
		a.set(i, &result{state: queue.Deferred, soon: true, failure: failure{status: "4.3.0", reason: "What the address stands for cannot be looked up in the directory now."}})
		return
	}
	old := a.env.Recipients[i]
	next := queue.Recipient{Notify: old.Notify, ORcpt: old.ORcpt, From: addr.String()}
	if next.ORcpt == "" && addr.IsASCII() {
		next.ORcpt = "rfc822;" + xtext(addr.String())
	}
	if len(leaves) > 1 {
		// RFC 3461 §5.2.7.2: this server reports the success, the others must not.
		next.Notify = without(next.Notify, "SUCCESS")
	}
	var envelopes []queue.Envelope
	place := map[string]int{}
	for _, leaf := range leaves {
		key := localKey
		if leaf.Decision.Outcome == route.Foreign {
			key = a.r.o.Remote.Destination(leaf.Address.Domain)
		}
		at, ok := place[key]
		if !ok {
			e := *a.env
			e.Recipients = nil
			at = len(envelopes)
			place[key], envelopes = at, append(envelopes, e)
		}
		next.Address = leaf.Address.String()
		envelopes[at].Recipients = append(envelopes[at].Recipients, next)
	}
	front := fmt.Sprintf("Delivered-To: %s\r\n", addr)
	ids, err := a.r.o.Queue.Enqueue(ctx, io.MultiReader(strings.NewReader(front), a.content.Reader()), a.now, envelopes...)
	if err != nil {
		a.r.o.Log.Error("the recipients that an address stands for could not be queued", "event", "queue_failed", "trace", a.env.Trace, "rcpt", addr.String(), "error", err)
		a.set(i, &result{state: queue.Deferred, soon: true, failure: failure{status: "4.3.0", reason: "The queue cannot take the message now."}})
		return
	}
	a.set(i, &result{state: queue.Expanded, leaves: len(leaves), failure: failure{status: "2.0.0",
		reason: fmt.Sprintf("sent on to %d recipients in %s", len(leaves), strings.Join(ids, " "))}})
}

// without removes one word of a NOTIFY list. Nothing left means that nothing is to be reported.
func without(notify, word string) string {
	if notify == "" {
		return ""
	}
	list := slices.DeleteFunc(strings.Split(notify, ","), func(s string) bool { return strings.EqualFold(s, word) })
	if len(list) == 0 {
		return "NEVER"
	}
	return strings.Join(list, ",")
}

// xtext is RFC 3461 §4's encoding.
func xtext(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c > ' ' && c < 0x7f && c != '+' && c != '=' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "+%02X", c)
		}
	}
	return b.String()
}

// header is what is looked at in the header section of a queued message.
type header struct {
	hops        int      // Received fields
	deliveredTo []string // keys of the addresses
}

// maxScan bounds what is read of a header section.
const maxScan = 256 << 10

// scan reads the header section, as far as it can be read.
func scan(r io.ReaderAt, size int64) *header {
	h := &header{}
	var line, rest []byte
	buf := make([]byte, 8<<10)
	for off := int64(0); off < min(size, maxScan); off += int64(len(buf)) {
		n, err := r.ReadAt(buf, off)
		rest = append(rest, buf[:n]...)
		for {
			var ok bool
			if line, rest, ok = cutLine(rest); !ok {
				break
			}
			if len(line) == 0 {
				return h
			}
			h.field(line)
		}
		if err != nil {
			break
		}
	}
	if len(rest) > 0 {
		h.field(rest)
	}
	return h
}

func cutLine(b []byte) (line, rest []byte, ok bool) {
	line, rest, ok = bytes.Cut(b, []byte("\n"))
	if !ok {
		return nil, b, false
	}
	return bytes.TrimSuffix(line, []byte("\r")), rest, true
}

func (h *header) field(line []byte) {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return
	}
	switch strings.ToLower(string(bytes.TrimRight(name, " \t"))) {
	case "received":
		h.hops++
	case "delivered-to":
		if a, err := mailaddr.Parse(string(bytes.TrimSpace(value))); err == nil {
			h.deliveredTo = append(h.deliveredTo, a.Key())
		}
	}
}
