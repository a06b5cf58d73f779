package filter

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sieve"
)

// do carries out what the scripts decided, in the order that the package comment gives.
func (x *execution) do(ctx context.Context, out *sieve.Outcome) (r Result, err error) {
	var files []*sieve.FileInto
	var later []sieve.Action
	kept := false
	for _, a := range out.Actions {
		switch a := a.(type) {
		case *sieve.Reject:
			if !a.Protocol && !isASCII(a.Reason) && !x.d.From.IsNull() && x.f.o.Outbox != nil {
				if err := x.send(ctx, mailaddr.Address{}, []mailaddr.Address{x.d.From}, strings.NewReader(x.refusal(a))); err != nil {
					return r, fmt.Errorf("tell %s of the refusal: %w", x.d.From, err)
				}
				r.Did = append(r.Did, "refused by a notice")
				continue
			}
			r.Rejected = oneLine(a.Reason)
			r.Did = append(r.Did, "rejected")
		case *sieve.Redirect:
			if x.f.o.Outbox == nil {
				if !kept {
					files, kept = append(files, &sieve.FileInto{Edited: a.Edited}), true
				}
				r.Did = append(r.Did, "kept, because nothing can be sent")
				continue
			}
			err := x.redirect(ctx, a)
			var refused *deliver.Error
			switch {
			case errors.As(err, &refused) && !refused.Temporary():
				if !kept {
					files, kept = append(files, &sieve.FileInto{Edited: a.Edited}), true
				}
				r.Did = append(r.Did, fmt.Sprintf("kept, because %s was refused: %v", a.To, err))
			case err != nil:
				return r, fmt.Errorf("redirect to %s: %w", a.To, err)
			default:
				r.Did = append(r.Did, "redirected to "+a.To.String())
			}
		case *sieve.FileInto:
			files = append(files, a)
		default:
			later = append(later, a)
		}
	}
	there := map[string]bool{} // several places may be one mailbox, which gets the message once (RFC 5228 §2.10.3)
	for _, a := range files {
		name, err := x.mailbox(ctx, a.Place)
		if err != nil {
			return r, fmt.Errorf("find mailbox %s: %w", a.Mailbox, err)
		}
		if there[name] {
			continue
		}
		stored, where, err := x.store(ctx, a, name)
		if err != nil {
			return r, fmt.Errorf("store in %s: %w", where, err)
		}
		there[name], there[where] = true, true
		r.Stored = append(r.Stored, stored)
		r.Did = append(r.Did, "stored in "+where)
	}
	if len(out.Actions) == 0 {
		r.Did = append(r.Did, "discarded")
	}
	for _, a := range later {
		what, err := x.answer(ctx, a)
		if err != nil {
			x.f.o.Log.WarnContext(ctx, "a script's message was not sent", "event", "script_send_failed", "trace", x.d.Trace,
				"account", x.d.Account.ID, "what", what, "error", err)
			what += " failed"
		}
		r.Did = append(r.Did, what)
	}
	for _, m := range out.Marks {
		if err := x.d.Handle.Remember(ctx, m.Key, m.Lifetime); err != nil {
			x.f.o.Log.WarnContext(ctx, "not remembered for duplicate", "trace", x.d.Trace, "account", x.d.Account.ID, "error", err)
		}
	}
	return r, nil
}

// maxReply bounds what is said in an SMTP reply.
const maxReply = 400

// oneLine makes a reason fit into an SMTP reply.
func oneLine(reason string) string {
	var b strings.Builder
	for _, word := range strings.Fields(reason) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		for _, c := range word {
			if c < ' ' || c >= 0x7f {
				c = '?'
			}
			b.WriteRune(c)
		}
		if b.Len() > maxReply {
			return b.String()[:maxReply]
		}
	}
	if b.Len() == 0 {
		return "The recipient refuses the message"
	}
	return b.String()
}

// mailbox finds the mailbox for a place, and makes it if the script wants that; the INBOX if there is none.
func (x *execution) mailbox(ctx context.Context, p sieve.Place) (string, error) {
	list, err := x.list(ctx)
	if err != nil {
		return "", err
	}
	name := mailboxName(p.Mailbox)
	for _, m := range list {
		if p.MailboxID != "" && m.ID == p.MailboxID {
			return m.Name, nil
		}
	}
	if p.SpecialUse != "" {
		for i := range list {
			if hasUse(&list[i], p.SpecialUse) {
				return list[i].Name, nil
			}
		}
	}
	if name == "" {
		return mailstore.Inbox, nil
	}
	for _, m := range list {
		if m.Name == name {
			return name, nil
		}
	}
	if !p.Create {
		return mailstore.Inbox, nil
	}
	var o mailstore.CreateOptions
	if p.SpecialUse != "" {
		o.SpecialUse = []string{p.SpecialUse}
	}
	_, err = x.d.Handle.Create(ctx, name, o)
	switch {
	case err == nil:
		x.boxes = nil
		if err := x.d.Handle.Subscribe(ctx, name, true); err != nil {
			x.f.o.Log.WarnContext(ctx, "mailbox of a script not subscribed", "account", x.d.Account.ID, "mailbox", name, "error", err)
		}
		return name, nil
	case errors.Is(err, mailstore.ErrMailboxExists):
		return name, nil
	case errors.Is(err, mailstore.ErrMailboxName):
		return mailstore.Inbox, nil
	}
	return "", err
}

// flags splits a script's flags into those of the system and keywords.
func flags(list []string) (f mailstore.Flags, keywords []string) {
	system := map[string]mailstore.Flags{`\Seen`: mailstore.FlagSeen, `\Answered`: mailstore.FlagAnswered, `\Flagged`: mailstore.FlagFlagged,
		`\Deleted`: mailstore.FlagDeleted, `\Draft`: mailstore.FlagDraft}
	for _, flag := range list {
		if bit, ok := system[flag]; ok {
			f |= bit
		} else {
			keywords = append(keywords, flag)
		}
	}
	return f, keywords
}

// store puts the message into a mailbox, with the header as the script left it, and says into which.
func (x *execution) store(ctx context.Context, a *sieve.FileInto, name string) (mailstore.Result, string, error) {
	message := x.d.Message
	if a.Edited != nil {
		var err error
		message, err = x.f.o.Store.Stage(ctx, x.d.Account.Volume, x.edited(a.Edited), 0)
		if err != nil {
			return mailstore.Result{}, name, err
		}
		defer message.Close()
	}
	t := mailstore.Target{Account: x.d.Handle, Mailbox: name, Date: x.f.o.Clock.Now()}
	if a.Edited == nil {
		t.Once = x.d.Once
	}
	t.Flags, t.Keywords = flags(a.Flags)
	r := x.f.o.Store.Deliver(ctx, message, []mailstore.Target{t})[0]
	if errors.Is(r.Err, mailstore.ErrNoMailbox) && name != mailstore.Inbox { // deleted meanwhile
		t.Mailbox, name = mailstore.Inbox, mailstore.Inbox
		r = x.f.o.Store.Deliver(ctx, message, []mailstore.Target{t})[0]
	}
	return r, name, r.Err
}

// edited reads the message with another header.
func (x *execution) edited(e *sieve.Edited) io.Reader {
	if e == nil {
		return io.NewSectionReader(x.file, 0, x.file.Size())
	}
	return io.MultiReader(bytes.NewReader(e.Header), io.NewSectionReader(x.file, e.BodyOffset, x.file.Size()-e.BodyOffset))
}

// redirect sends the message on under its sender's name.
func (x *execution) redirect(ctx context.Context, a *sieve.Redirect) error {
	own := "Delivered-To: " + x.d.Account.Address + "\r\n"
	return x.send(ctx, x.d.From, []mailaddr.Address{a.To}, io.MultiReader(strings.NewReader(own), withoutReturnPath(x.edited(a.Edited))))
}

// withoutReturnPath leaves out the Return-Path at the top, which belongs to this delivery.
func withoutReturnPath(r io.Reader) io.Reader {
	top := make([]byte, 2048)
	n, err := io.ReadFull(r, top)
	top = top[:n]
	const name = "return-path:"
	if n > len(name) && strings.EqualFold(string(top[:len(name)]), name) {
		if i := bytes.IndexByte(top, '\n'); i >= 0 {
			top = top[i+1:]
		}
	}
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return io.MultiReader(bytes.NewReader(top), failing{err})
	}
	return io.MultiReader(bytes.NewReader(top), r)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// send hands a message to a switch. Without an error it is in a queue, on stable storage.
func (x *execution) send(ctx context.Context, from mailaddr.Address, to []mailaddr.Address, message io.Reader) error {
	if x.f.o.Outbox == nil {
		return errors.New("there is no switch to send through: the box has no relay block")
	}
	utf8 := !from.IsASCII()
	for _, a := range to {
		utf8 = utf8 || !a.IsASCII()
	}
	t, err := x.f.o.Outbox.Begin(ctx, deliver.Envelope{From: from, EnvID: x.d.Trace, EightBit: true, UTF8: utf8})
	if err != nil {
		return err
	}
	defer t.Close()
	for _, a := range to {
		if err := t.Rcpt(a); err != nil {
			return err
		}
	}
	results, err := t.Data(message)
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Err != nil {
			return r.Err
		}
	}
	x.f.m.sent.Inc()
	return nil
}

// answer does what is not part of the delivery itself, and says what it was.
func (x *execution) answer(ctx context.Context, a sieve.Action) (string, error) {
	switch a := a.(type) {
	case *sieve.Vacation:
		key := keyOf("vacation", a.Key, a.To.Key())
		turn, first, err := x.d.Handle.Claim(ctx, key, a.Interval)
		if err != nil {
			return "vacation reply", err
		}
		if !first {
			return "vacation reply not due", nil
		}
		message := x.vacation(a)
		if err := x.send(ctx, mailaddr.Address{}, []mailaddr.Address{a.To}, strings.NewReader(message)); err != nil {
			if _, _, undone := x.d.Handle.Extend(context.WithoutCancel(ctx), key, turn, 0); undone != nil { // the next message may be answered
				err = errors.Join(err, undone)
			}
			return "vacation reply", err
		}
		return "vacation reply to " + a.To.String(), x.copy(ctx, a.FCC, message)
	case *sieve.Notify:
		message := x.notification(a)
		if err := x.send(ctx, mailaddr.Address{}, a.To, strings.NewReader(message)); err != nil {
			return "notification", err
		}
		return "notification", x.copy(ctx, a.FCC, message)
	}
	return "", fmt.Errorf("no such action: %T", a)
}

// copy keeps what was sent (RFC 8580).
func (x *execution) copy(ctx context.Context, fcc *sieve.FCC, message string) error {
	if fcc == nil {
		return nil
	}
	name, err := x.mailbox(ctx, fcc.Place)
	if err != nil {
		return err
	}
	f, keywords := flags(fcc.Flags)
	return x.put(ctx, mailstore.Target{Account: x.d.Handle, Mailbox: name, Flags: f, Keywords: keywords, Date: x.f.o.Clock.Now()}, message)
}

func (x *execution) put(ctx context.Context, t mailstore.Target, message string) error {
	m, err := x.f.o.Store.Stage(ctx, x.d.Account.Volume, strings.NewReader(message), 0)
	if err != nil {
		return err
	}
	defer m.Close()
	return x.f.o.Store.Deliver(ctx, m, []mailstore.Target{t})[0].Err
}

// tellOwner puts a message about a broken script into the INBOX, once a day for each mistake.
func (x *execution) tellOwner(ctx context.Context, broken error) {
	first, err := x.d.Handle.MarkSeen(ctx, keyOf("broken", broken.Error()), 24*time.Hour)
	if err == nil && first {
		err = x.put(ctx, mailstore.Target{Account: x.d.Handle, Date: x.f.o.Clock.Now()}, x.brokenScript(broken))
	}
	if err != nil {
		x.f.o.Log.LogAttrs(ctx, slog.LevelWarn, "the owner of a broken script was not told", slog.String("account", x.d.Account.ID), slog.Any("error", err))
	}
}

// keyOf makes a key for marks.
func keyOf(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

const (
	tellEvery = time.Hour // the same mistake of an operator
	mostTold  = 1000      // mistakes that are remembered
)

// tellOperator logs a mistake in a script of a domain or of the provider, once in a while. Each message that it meets is in the log and in
// the metrics as well, as any other failure.
func (x *execution) tellOperator(ctx context.Context, broken error) {
	f, now := x.f, x.f.o.Clock.Now()
	key := x.d.Account.Domain + "\x00" + broken.Error()
	f.mu.Lock()
	last, known := f.told[key]
	fresh := !known || now.Sub(last) >= tellEvery
	if fresh {
		if len(f.told) >= mostTold || f.told == nil {
			f.told = map[string]time.Time{}
		}
		f.told[key] = now
	}
	f.mu.Unlock()
	if fresh {
		f.o.Log.LogAttrs(ctx, slog.LevelError, "a script of the provider or of a domain does not work: its mail goes to the INBOX of each account; put another one there with shoalctl sieve put",
			slog.String("event", "sieve-broken"), slog.String("domain", x.d.Account.Domain), slog.Any("error", broken))
	}
}
