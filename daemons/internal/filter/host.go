package filter

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sieve"
)

// execution is one delivery through scripts.
type execution struct {
	f       *Filter
	d       *Delivery
	file    *mailstore.StagedFile
	boxes   []mailstore.MailboxInfo // nil: not listed yet
	hostErr error                   // what the store could not answer
	claims  map[string]int64        // keys of duplicate tests that this delivery decides, with their turns
}

func (x *execution) env(context.Context) *sieve.Env {
	e := &sieve.Env{
		Message: x.file, Size: x.file.Size(), From: x.d.From, To: x.d.To, Separators: x.f.o.Settings.Separators,
		Now: x.f.o.Clock.Now(), Host: x, Load: x.include, Limits: x.f.limits(),
		Environment: map[string]string{"host": x.f.o.Hostname, "domain": x.d.Account.Domain, "version": x.f.o.Version},
	}
	if name, ip := client(x.file); ip != "" {
		e.Environment["remote-host"], e.Environment["remote-ip"] = name, ip
	}
	e.Spam, e.Virus = x.f.o.Settings.verdict(x.file)
	e.Owner, _ = mailaddr.Parse(x.d.Account.Address)
	for _, v := range x.d.Account.Addresses {
		if a, err := mailaddr.Parse(v); err == nil {
			e.Addresses = append(e.Addresses, a)
		}
	}
	return e
}

// host notes an error of the store: the script is not to blame, and the delivery is tried again.
func (x *execution) host(err error) error {
	if err != nil && x.hostErr == nil {
		x.hostErr = err
	}
	return err
}

func (x *execution) list(ctx context.Context) ([]mailstore.MailboxInfo, error) {
	if x.boxes == nil {
		var err error
		if x.boxes, err = x.d.Handle.Mailboxes(ctx); err != nil {
			return nil, x.host(err)
		}
	}
	return x.boxes, nil
}

// mailboxName is a script's name of a mailbox as the store has it.
func mailboxName(name string) string {
	if strings.EqualFold(name, mailstore.Inbox) {
		return mailstore.Inbox
	}
	if first, rest, ok := strings.Cut(name, "/"); ok && strings.EqualFold(first, mailstore.Inbox) {
		return mailstore.Inbox + "/" + rest
	}
	return name
}

// MailboxExists implements sieve.Host.
func (x *execution) MailboxExists(ctx context.Context, name string) (bool, error) {
	list, err := x.list(ctx)
	return slices.ContainsFunc(list, func(m mailstore.MailboxInfo) bool { return m.Name == mailboxName(name) }), err
}

// MailboxIDExists implements sieve.Host.
func (x *execution) MailboxIDExists(ctx context.Context, id string) (bool, error) {
	list, err := x.list(ctx)
	return slices.ContainsFunc(list, func(m mailstore.MailboxInfo) bool { return m.ID == id }), err
}

// SpecialUse implements sieve.Host.
func (x *execution) SpecialUse(ctx context.Context, name string, uses []string) (bool, error) {
	list, err := x.list(ctx)
	for _, use := range uses {
		if !slices.ContainsFunc(list, func(m mailstore.MailboxInfo) bool {
			return (name == "" || m.Name == mailboxName(name)) && hasUse(&m, use)
		}) {
			return false, err
		}
	}
	return true, err
}

func hasUse(m *mailstore.MailboxInfo, use string) bool {
	return slices.ContainsFunc(m.SpecialUse, func(u string) bool { return strings.EqualFold(u, strings.TrimPrefix(use, `\`)) })
}

// lease is how long a claim holds if the server that made it dies: longer than a delivery can take.
const lease = 10 * time.Minute

// errUndecided says that another delivery is at work on a message of the same id. Whether this one is a duplicate depends on
// how that one ends: the sender tries again.
var errUndecided = errors.New("another message of the same id is being delivered")

// Claim implements sieve.Host. The mark is looked for again when the claim is there: between the first look and the claim another
// delivery may have made its mark and given its claim back.
func (x *execution) Claim(ctx context.Context, key string) (bool, error) {
	seen, err := x.d.Handle.Seen(ctx, key)
	if _, mine := x.claims[key]; seen || err != nil || mine {
		return seen, x.host(err)
	}
	turn, got, err := x.d.Handle.Claim(ctx, keyOf("claim", key), lease)
	if err != nil {
		return false, x.host(err)
	}
	if got {
		if x.claims == nil {
			x.claims = map[string]int64{}
		}
		x.claims[key] = turn
	}
	if seen, err = x.d.Handle.Seen(ctx, key); err == nil && !seen && !got {
		err = errUndecided
	}
	return seen, x.host(err)
}

// giveBack ends the claims, after the marks are made or because there will be none. A claim that stays ends with its lease.
func (x *execution) giveBack(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	for key, turn := range x.claims {
		if _, _, err := x.d.Handle.Extend(ctx, keyOf("claim", key), turn, 0); err != nil {
			x.f.o.Log.WarnContext(ctx, "claim of a duplicate test not given back", "trace", x.d.Trace, "account", x.d.Account.ID, "error", err)
		}
	}
}
