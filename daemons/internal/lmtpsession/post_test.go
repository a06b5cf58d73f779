package lmtpsession

import (
	"testing"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
)

// The right p (RFC 4314): public mailboxes take mail only if anyone has it, those of a person unless anyone is denied it; by subaddress a mailbox
// that takes none is passed over.
func TestRightToPost(t *testing.T) {
	p := &policy{dirclient.SubaddressFolder}
	board := *people["alice@d.test"]
	board.Addresses = []string{"alice@d.test"}
	board.Public = true
	r := newRig(t, func(o *Options) { o.Domains, o.Separators, o.Accounts = p, "+", directory{"alice@d.test": &board} })
	ctx := t.Context()
	a, err := r.store.Account(ctx, board.Volume, board.ID)
	if err != nil {
		t.Fatal(err)
	}
	news, err := a.Create(ctx, "News", mailstore.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	set := func(mailbox, who, rights string) {
		t.Helper()
		if err := a.SetAttrs(ctx, mailstore.Attr{Mailbox: mailbox, Key: "acl:" + who, Value: rights}); err != nil {
			t.Fatal(err)
		}
	}
	l, err := a.Listing(ctx)
	if err != nil {
		t.Fatal(err)
	}
	box, _ := l.Mailbox("INBOX")
	count := func(name string) int {
		t.Helper()
		m, err := a.Open(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		st, err := m.State(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return st.Len()
	}
	const mail = "C1: MAIL FROM:<x@far.test>\nS1: 250 {{.*}}\nC1: RCPT TO:<alice@d.test> ORCPT=rfc822;alice+2Bnews@d.test\n"
	deliver := func() {
		r.play(hello + mail + "S1: 250 {{.*}}\nC1: DATA\nS1: 354 {{.*}}\nC1!: text\\r\\n.\\r\\n\nS1: 250 {{.*}}\n")
	}
	step := func(inbox, below int) {
		t.Helper()
		if i, n := count("INBOX"), count("News"); i != inbox || n != below {
			t.Errorf("%d and %d messages, want %d and %d", i, n, inbox, below)
		}
	}
	r.play(hello + mail + "S1: 550 5.7.1 {{.*}}\n")
	set(box.ID, "anyone", "lpr")
	deliver()
	step(1, 0)
	set(news.ID, "anyone", "p")
	deliver()
	step(1, 1)
	set(news.ID, "-anyone", "p")
	deliver()
	step(2, 1)
	board.Public = false
	deliver()
	step(3, 1)
	set(news.ID, "-anyone", "")
	deliver()
	step(3, 2)
}
