package mailstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

// Attributes are seen by another server, follow a rename, survive a snapshot, and go with the mailbox.
func TestAttributes(t *testing.T) {
	ctx := t.Context()
	mem := vfs.NewMem(time.Now)
	one, two := scriptAccount(t, mem, "box1"), scriptAccount(t, mem, "box2")
	info, err := one.Create(ctx, "Team", CreateOptions{SpecialUse: []string{"Archive"}, Attrs: map[string]string{"acl:anyone": "lr", "odd:=|%,; \n": "=|%,; \n"}})
	check(t, err)
	check(t, two.SetAttrs(ctx, Attr{info.ID, "acl:user:account-bob", "lrs"}, Attr{info.ID, "acl:anyone", ""}, Attr{"", "shared:account-2", "1"}))
	check(t, two.Rename(ctx, "Team", "Group"))
	want := func(w string) {
		t.Helper()
		for _, a := range []*Account{one, two, scriptAccount(t, mem, "box3")} {
			l, err := a.Listing(ctx)
			check(t, err)
			b, _ := l.Mailbox("Group")
			if got := fmt.Sprintf("%v %q %v", b.SpecialUse, l.Attrs(b.ID, ""), l.Attrs("", "")); got != w {
				t.Errorf("%s, want %s", got, w)
			}
		}
	}
	now := `[Archive] map["acl:user:account-bob":"lrs" "odd:=|%,; \n":"=|%,; \n" "use":"Archive"] map[shared:account-2:1]`
	want(now)
	check(t, one.j.checkpoint(ctx, true))
	want(now)
	l, err := one.Listing(ctx)
	check(t, err)
	if got := l.Attrs(info.ID, "acl:"); len(got) != 1 || got["user:account-bob"] != "lrs" || l.Attr(info.ID, "acl:anyone") != "" {
		t.Error(got)
	}
	before := l.Commit()
	check(t, one.SetAttrs(ctx, Attr{info.ID, "acl:user:account-bob", "lrs"})) // is so already
	check(t, one.SetAttrs(ctx))
	if l, _ := one.Listing(ctx); l.Commit() != before {
		t.Error("a change of nothing was committed")
	}
	check(t, two.Delete(ctx, "Group"))
	if l, _ = one.Listing(ctx); len(l.Attrs(info.ID, "")) != 0 {
		t.Error("attributes of a deleted mailbox")
	}
	if err := one.SetAttrs(ctx, Attr{info.ID, "a", "b"}); !errors.Is(err, ErrNoMailbox) {
		t.Error(err)
	}
	for _, x := range []Attr{{"", "", "x"}, {"", "Acl", "x"}, {"", "9", "x"}, {"", "a" + strings.Repeat("x", MaxAttrKey), "x"}, {"", "a", "\xff"},
		{"", "a", strings.Repeat("x", MaxAttrValue+1)}, {"../..", "a", "x"}} {
		if err := one.SetAttrs(ctx, x); !errors.Is(err, ErrAttribute) {
			t.Errorf("%.20q: %v", x.Key, err)
		}
	}
	for _, key := range []string{"use", "g", "B"} {
		if _, err := one.Create(ctx, "x", CreateOptions{Attrs: map[string]string{key: "1"}}); !errors.Is(err, ErrAttribute) {
			t.Errorf("%s: %v", key, err)
		}
	}
	if _, err := scriptAccount(t, mem, "box4").s.ExistingAccount(ctx, "vol01", "account-none"); !errors.Is(err, ErrNoAccount) {
		t.Error(err)
	}
	fault := vfs.NewFault(mem)
	looker := testStore(t, fault, "/", "box5")
	fault.Reset()
	if _, err := looker.ExistingAccount(ctx, "vol01", "account-none"); !errors.Is(err, ErrNoAccount) || fault.Counts().Total() != 1 {
		t.Errorf("%v, after %v", err, fault.Counts())
	}
	if a, err := two.s.ExistingAccount(ctx, "vol01", "account-1"); err != nil || a.KnownListing() == nil {
		t.Error(err)
	}
}

// INBOX keeps its attributes when it is renamed, and its messages take them along.
func TestAttributesOfInbox(t *testing.T) {
	ctx := t.Context()
	a := scriptAccount(t, vfs.NewMem(time.Now), "box1")
	l, err := a.Listing(ctx)
	check(t, err)
	inbox, _ := l.Mailbox("inbox")
	check(t, a.SetAttrs(ctx, Attr{inbox.ID, "note:/shared/comment", "hello"}))
	check(t, a.Rename(ctx, Inbox, "Then"))
	l, err = a.Listing(ctx)
	check(t, err)
	for _, name := range []string{Inbox, "Then"} {
		if b, ok := l.Mailbox(name); !ok || l.Attr(b.ID, "note:/shared/comment") != "hello" {
			t.Error(name, l.Attrs(b.ID, ""))
		}
	}
}

// Callers whose ops come together in one record, some of several ops, are each told what became of their own.
func TestAttributesAtOnce(t *testing.T) {
	ctx := context.Background()
	a := scriptAccount(t, vfs.NewMem(time.Now), "box1")
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := a.SetAttrs(ctx, Attr{"", fmt.Sprintf("x%d", i), "1"}, Attr{"", fmt.Sprintf("y%d", i), "1"}); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if _, err := a.Create(ctx, fmt.Sprintf("box %d", i), CreateOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	l, err := a.Listing(ctx)
	check(t, err)
	if len(l.Attrs("", "")) != 40 || len(l.Mailboxes()) != 21 {
		t.Error(len(l.Attrs("", "")), len(l.Mailboxes()))
	}
}
